use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::protocol::Protocol;

fn validate(settings: Settings) -> Result<Config, Error> {
    settings.validate(Deciders::default())
}

/// Returns the setting that the error names, and its whole text.
#[track_caller]
fn refused(change: impl FnOnce(&mut Settings)) -> (String, String) {
    let mut settings = Settings::default();
    change(&mut settings);
    let error = validate(settings).unwrap_err();
    let name = error.setting().expect("it is a setting").to_owned();
    (name, error.to_string())
}

fn listening(listeners: impl IntoIterator<Item = Listener>) -> Settings {
    Settings {
        listen: listeners.into_iter().collect(),
        ..Settings::default()
    }
}

#[test]
fn the_defaults_are_valid() {
    let config = validate(Settings::default()).unwrap();
    let listener = config.listener(ListenerId(0));
    let address: std::net::SocketAddr = DEFAULT_LISTEN.parse().unwrap();
    assert_eq!(listener.sources, [Source::Bind(address.into())]);
    assert_eq!(listener.name, DEFAULT_LISTEN);
    assert_eq!((config.inbox, config.outbox), (2 * MIB, MIB));
}

#[test]
fn a_setting_out_of_range_is_refused_by_its_name_in_the_builder() {
    for (name, change) in [
        ("workers", (|s| s.workers = 0) as fn(&mut Settings)),
        ("standby", |s| s.standby = 512),
        ("reactors", |s| s.reactors = Some(0)),
        ("callback_limit", |s| {
            s.callback_limit = Some(Duration::ZERO)
        }),
        ("max_requests", |s| s.max_requests = Some(0)),
        ("worker_memory", |s| s.worker_memory = Some(5)),
        ("fail_on_crash_loop", |s| {
            s.fail_on_crash_loop = Some(Duration::MAX)
        }),
        ("close_deadline", |s| s.close_deadline = Some(Duration::MAX)),
        ("shutdown_deadline", |s| s.shutdown_deadline = Duration::MAX),
        ("max_connections", |s| s.max_connections = Some(0)),
        ("output_high_water", |s| s.output_high_water = 0),
        ("output_limit", |s| {
            s.output_limit = Some(s.output_high_water - 1)
        }),
        ("output_limit", |s| s.output_limit = Some(0)),
        ("memory_budget", |s| s.memory_budget = Some(1)),
        ("on_crash", |s| {
            s.on_crash = OnCrash::Redeliver { attempts: 0 }
        }),
        ("max_message", |s| {
            s.listen = vec![Listener::tcp("127.0.0.1:0").max_message(0)]
        }),
        ("backlog", |s| {
            s.listen = vec![Listener::tcp("127.0.0.1:0").backlog(u32::MAX)]
        }),
        ("name", |s| s.name = Some("two words".to_owned())),
        ("poison_shown", |s| s.poison_shown = 1 << 20),
        ("post_attempts", |s| s.post_attempts = 0),
        ("task_attempts", |s| s.task_attempts = 0),
        ("task_workers", |s| (s.workers, s.task_workers) = (500, 12)),
        ("task_workers", |s| {
            (s.mode, s.task_workers) = (Mode::Base, 1)
        }),
        ("task_queue", |s| s.task_queue = 0),
        ("task_queue_bytes", |s| {
            s.memory_budget = Some(512 * MIB);
            s.task_queue_bytes = Some(256 * MIB + 1);
        }),
        ("listen", |s| s.listen = vec!["nonsense".into()]),
    ] {
        assert_eq!(refused(change).0, name);
    }
    assert_eq!(
        refused(|s| s.workers = 0).1,
        "setting workers: 0 is not between 1 and 511"
    );
    assert_eq!(
        refused(|s| s.worker_memory = Some(5)).1,
        "setting worker_memory: 5 bytes is less than the minimum, 1048576 bytes"
    );
}

#[test]
fn an_invalid_listener_is_named() {
    let wrong = Listener::tcp("127.0.0.1:0").name("web").max_message(0);
    let (_, text) = refused(|s| s.listen = vec![wrong]);
    assert!(text.ends_with(" (listener web)"), "{text}");
}

#[test]
fn two_listeners_have_two_names() {
    let (a, b) = (Listener::tcp("127.0.0.1:0"), Listener::tcp("[::1]:0"));
    let config = validate(listening([a.clone(), b.clone().name("b"), a.clone()])).unwrap();
    let names: Vec<&str> = config.listeners.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["127.0.0.1:0", "b", "127.0.0.1:0#2"]);
    let (name, text) = refused(|s| s.listen = vec![a.name("b"), b.name("b")]);
    assert_eq!(name, "listen");
    assert!(text.contains("two listeners have the name \"b\""), "{text}");
}

#[test]
fn settings_without_a_meaning_in_base_mode_are_refused_there() {
    fn base(change: impl FnOnce(&mut Settings)) -> (String, String) {
        refused(|settings| {
            settings.mode = Mode::Base;
            change(settings);
        })
    }
    let redeliver = OnCrash::Redeliver { attempts: 3 };
    assert_eq!(base(|s| s.on_crash = redeliver).0, "on_crash");
    assert_eq!(base(|s| s.on_crash = OnCrash::Keep).0, "on_crash");
    assert_eq!(base(|s| s.dispatch = Dispatch::UserId).0, "dispatch");
    for (name, deciders) in [
        (
            "on_crash_with",
            Deciders {
                crash: Some(Arc::new(|_| OnCrash::Close)),
                ..Deciders::default()
            },
        ),
        (
            "dispatch_with",
            Deciders {
                dispatch: Some(Arc::new(|route| route.seat)),
                ..Deciders::default()
            },
        ),
    ] {
        let mut settings = Settings {
            mode: Mode::Base,
            ..Settings::default()
        };
        let error = settings.clone().validate(deciders.clone()).unwrap_err();
        assert_eq!(error.setting(), Some(name));
        settings.mode = Mode::Process;
        settings.validate(deciders).unwrap();
    }
    let settings = Settings {
        mode: Mode::Base,
        on_crash: OnCrash::Reply(b"sorry".to_vec()),
        ..Settings::default()
    };
    validate(settings).expect("a callback that fails has a reply in base mode too");
}

#[test]
fn a_raw_message_can_be_echoed_within_the_limits() {
    let longest = |max_message, output_limit| {
        let listener = Listener::tcp(DEFAULT_LISTEN).max_message(max_message);
        let listener = listener.validate().unwrap();
        listener.longest_raw(output_limit)
    };
    assert_eq!(longest(MIB, MIB), READ_SIZE);
    assert_eq!(longest(1000, MIB), 1000);
    assert_eq!(longest(MIB, 100_000), 100_000 - 4 * charge(0));
    assert_eq!(longest(MIB, 2000), LEAST_READ);
}

#[test]
fn an_inbox_holds_the_longest_message_of_any_listener() {
    let protocol: Protocol = "delimiter=\\n".parse().unwrap();
    let lines = Listener::tcp("127.0.0.1:1").protocol(protocol);
    let raw = Listener::tcp("127.0.0.1:2");
    let short = lines.clone().name("short").max_message(1000);
    let config = validate(listening([short, raw, lines])).unwrap();
    assert!(config.inbox > config.listener(ListenerId(2)).max_message);
}

#[test]
fn a_deadline_out_of_range_is_refused_by_its_name_in_the_builder() {
    for (name, change) in [
        (
            "open_deadline",
            (|s| s.listen = vec![Listener::tcp("127.0.0.1:0").open_deadline(Duration::ZERO)])
                as fn(&mut Settings),
        ),
        ("message_deadline", |s| {
            s.listen = vec![Listener::tcp("127.0.0.1:0").message_deadline(Duration::MAX)]
        }),
        ("idle", |s| {
            s.listen = vec![Listener::tcp("127.0.0.1:0").idle(Duration::from_micros(999))]
        }),
        ("write_deadline", |s| {
            s.listen = vec![Listener::tcp("127.0.0.1:0").write_deadline(Duration::MAX)]
        }),
        ("queue_deadline", |s| {
            s.listen = vec![Listener::tcp("127.0.0.1:0").queue_deadline(Duration::MAX)]
        }),
        ("keepalive", |s| {
            s.listen = vec![Listener::tcp("127.0.0.1:0").keepalive(Duration::from_millis(999))]
        }),
        ("user_timeout", |s| {
            s.listen = vec![Listener::tcp("127.0.0.1:0").user_timeout(Duration::MAX)]
        }),
        ("max_connections_per_address", |s| {
            s.max_connections_per_address = Some(0)
        }),
    ] {
        assert_eq!(refused(change).0, name);
    }
}

#[test]
fn the_kernel_gives_a_peer_up_no_sooner_than_the_server() {
    let user_timeout = |change: fn(Listener) -> Listener| {
        let listener = change(Listener::tcp(DEFAULT_LISTEN)).validate().unwrap();
        listener
            .options
            .probes
            .user_timeout
            .map(|time| time.as_secs())
    };
    let seconds = Duration::from_secs;
    assert_eq!(user_timeout(|it| it), Some(120));
    assert_eq!(
        user_timeout(|it| it.write_deadline(Duration::from_secs(500))),
        Some(500)
    );
    assert_eq!(
        user_timeout(|it| it.keepalive(Duration::from_secs(100))),
        Some(200)
    );
    assert_eq!(user_timeout(|it| it.keepalive(None)), Some(120));
    assert_eq!(user_timeout(|it| it.write_deadline(None)), None);
    let set = Listener::tcp(DEFAULT_LISTEN).user_timeout(seconds(7));
    let set = set.validate().unwrap().options.probes.user_timeout;
    assert_eq!(set, Some(seconds(7)));
}

#[cfg(feature = "serde")]
#[test]
fn deadlines_of_a_listener_are_read_from_a_file() {
    let text = r#"{"listen": [{"tcp": "0.0.0.0:7000", "idle": 30.5, "write_deadline": "never", "on_idle": "call"}]}"#;
    let read: Settings = serde_json::from_str(text).unwrap();
    let silence = read.listen[0].clone().validate().unwrap().silence;
    assert_eq!((silence.idle, silence.write), (30_500, silence::NEVER));
    assert!(silence.calls_idle);
    assert_eq!(silence.open, 60_000, "a missing deadline has its default");
    let written = serde_json::to_string(&read).unwrap();
    assert_eq!(serde_json::from_str::<Settings>(&written).unwrap(), read);
}

#[cfg(feature = "serde")]
#[test]
fn listeners_of_every_kind_are_read_from_a_file() {
    let text = r#"{"listen": [
        {"unix": "/run/app.sock", "mode": "0660", "owner": "0:0"},
        {"inherited": "fd:7"},
        {"tcp": "[::]:7000", "v6only": false, "defer_accept": 5, "receive_buffer": 65536, "send_buffer": 32768,
         "allow": ["10.0.0.0/8"], "deny": ["10.6.0.0/16"], "max_new_per_second": 9, "address_prefix_v4": 24}
    ]}"#;
    let read: Settings = serde_json::from_str(text).unwrap();
    let expected = [
        Listener::unix("/run/app.sock").mode(0o660).owner("0:0"),
        Listener::inherited(Inherited::Fd(7)),
        Listener::tcp("[::]:7000")
            .v6only(false)
            .defer_accept(Duration::from_secs(5))
            .receive_buffer(65536)
            .send_buffer(32768)
            .allow(["10.0.0.0/8"])
            .deny(["10.6.0.0/16"])
            .max_new_per_second(9)
            .address_prefix(24, 64),
    ];
    let validated = |listener: &Listener| format!("{:?}", listener.clone().validate().unwrap());
    for (read, expected) in read.listen.iter().zip(&expected) {
        assert_eq!(validated(read), validated(expected));
    }
    let written = serde_json::to_string(&read).unwrap();
    assert_eq!(serde_json::from_str::<Settings>(&written).unwrap(), read);
    for (wrong, why) in [
        (r#"{"listen": [{"name": "it"}]}"#, "one of the keys tcp"),
        (
            r#"{"listen": [{"tcp": ":1", "unix": "x"}]}"#,
            "one of the keys tcp",
        ),
        (r#"{"listen": [{"inherited": "3"}]}"#, "fd:NUMBER"),
        (r#"{"listen": [{"unix": "x", "mode": "rw"}]}"#, "octal"),
    ] {
        let error = serde_json::from_str::<Settings>(wrong).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn a_listener_has_one_place_and_no_setting_that_has_no_meaning_there() {
    let twice = || Listener::inherited(Inherited::Fd(7));
    let (name, text) = refused(|s| s.listen = vec![twice().name("a"), twice().name("b")]);
    assert_eq!(name, "listen");
    assert!(text.contains("descriptor 7"), "{text}");
    for (listener, name) in [
        (Listener::unix("x").v6only(true), "v6only"),
        (Listener::unix("x").allow(["::1"]), "allow"),
        (Listener::unix("@x").mode(0o600), "mode"),
        (Listener::unix("x").mode(0o1777), "mode"),
        (Listener::unix("x").owner(":"), "owner"),
        (Listener::tcp(":1").owner("0"), "owner"),
        (twice().v6only(false), "v6only"),
        (twice().mode(0o600), "mode"),
        (Listener::unix("x").receive_buffer(9), "receive_buffer"),
        (
            Listener::tcp("[::1]:1").address_prefix(0, 64),
            "address_prefix",
        ),
        (
            Listener::tcp("[::1]:1").address_prefix(32, 129),
            "address_prefix",
        ),
        (
            Listener::tcp("[::1]:1").max_new_per_second(0),
            "max_new_per_second",
        ),
        (
            Listener::tcp("[::1]:1").defer_accept(Duration::from_millis(9)),
            "defer_accept",
        ),
    ] {
        assert_eq!(refused(|s| s.listen = vec![listener]).0, name);
    }
}

#[cfg(feature = "serde")]
#[test]
fn settings_are_read_from_a_file_and_survive_a_round_trip() {
    let text = r#"{
        "listen": [{"tcp": "0.0.0.0:7000", "name": "lines", "protocol": "delimiter=\\n"}],
        "workers": 3, "on_crash": "redeliver=5", "dispatch": "least-busy",
        "callback_limit": 0.5, "on_limit": "kill", "close_deadline": "never", "pid_file": "/run/tine"
    }"#;
    let read: Settings = serde_json::from_str(text).unwrap();
    assert_eq!(read.workers, 3);
    assert_eq!(read.on_crash, OnCrash::Redeliver { attempts: 5 });
    assert_eq!(read.dispatch, Dispatch::LeastBusy);
    assert_eq!(read.callback_limit, Some(Duration::from_millis(500)));
    assert_eq!(read.close_deadline, None);
    assert_eq!(read.standby, 0, "a missing setting has its default");
    let written = serde_json::to_string(&read).unwrap();
    assert_eq!(serde_json::from_str::<Settings>(&written).unwrap(), read);
    for wrong in [
        r#"{"wrokers": 3}"#,
        r#"{"close_deadline": "soon"}"#,
        r#"{"shutdown_deadline": -1}"#,
        r#"{"listen": [{"tcp": ":80", "protocol": "morse"}]}"#,
    ] {
        assert!(serde_json::from_str::<Settings>(wrong).is_err(), "{wrong}");
    }
}
