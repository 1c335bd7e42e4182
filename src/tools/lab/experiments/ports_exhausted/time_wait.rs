//! Ports in TIME_WAIT, and when they become free.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::few::is_exhausted;
use super::{Course, PORTS, accept};
use crate::lab::end::{End, Ends, Listening, Sharing};
use crate::lab::picture::{Chart, Series, Style};
use crate::lab::stop::Trying;
use crate::lab::{Lab, PATIENCE, Stop};
use crate::sockets::State::{CloseWait, FinWait2, TimeWait};
use crate::sockets::counters::Settings;
use crate::sys::options;

/// Number of attempts to fill all ports with TIME_WAIT before the first one is free again.
const ATTEMPTS: usize = 10;

/// Seconds of FIN_WAIT2 to set: far from 60, and long enough to be observed.
const FIN_WAIT2: u8 = 20;

/// The kernel's timer of a TIME_WAIT, less the time until it is read.
const MOST_OF_A_MINUTE: RangeInclusive<Duration> =
    Duration::from_secs(30)..=Duration::from_secs(61);

/// The value of net.ipv4.tcp_tw_reuse_delay, in milliseconds, above which this experiment does not wait
/// for it. The default is 1000.
const LONG_DELAY: u64 = 5000;

impl Course {
    /// The client closes first, each time.
    pub(super) fn time_wait(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        lab.step(&format!(
            "A new server. The client opens {PORTS} connections, closes each of them first, and \
             connects once more."
        ))?;
        let mut found = self.close_one_of_each(lab)?;
        for _ in 1..ATTEMPTS {
            // The first port may be taken again a second after its close, on older kernels as soon as
            // the clock shows another second. That is the subject of the next step.
            if found.1.is_err() {
                break;
            }
            found = self.close_one_of_each(lab)?;
        }
        let (closed, next) = found;
        let expected: Vec<_> = closed.iter().map(|ends| ends.client_is(TimeWait)).collect();
        lab.see("each port is in TIME_WAIT", &expected)?;
        self.refused(
            lab,
            &next,
            "the next connect() failed with EADDRNOTAVAIL, though no connection is open",
        )?;
        let left = time_left(lab, closed[0])?;
        lab.check(
            "the kernel's timer keeps each for 60 s",
            MOST_OF_A_MINUTE.contains(&left),
            &seconds(left),
        )
    }

    /// Fills the ports with TIME_WAIT, and connects once more at once.
    fn close_one_of_each(
        &mut self,
        lab: &mut Lab<'_>,
    ) -> Result<(Vec<Ends>, io::Result<End>), Stop> {
        lab.forget_ports();
        self.listening = lab.listen(64, Sharing::default())?;
        let clients = self.few.one_of_each(lab, &self.listening)?;
        let closed: Vec<Ends> = clients.iter().map(|client| client.ends).collect();
        let mut servers = Vec::new();
        for ends in &closed {
            servers.push(accept(lab, &self.listening, *ends)?);
        }
        drop(clients);
        for server in servers {
            lab.read_end(&server)?.trying("read")?;
        }
        for ends in &closed {
            await_time_wait(lab, *ends)?;
        }
        let next = self.few.client(lab, self.listening.address, |_| Ok(()))?;
        Ok((closed, next))
    }

    pub(super) fn reuse(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        let reuse = self.settings.tw_reuse;
        if let Some(why) = why_never(self.settings)? {
            return self.no_reuse(lab, &why);
        }
        lab.step("The client goes on connecting and closing whenever it can.")?;
        let begin = Instant::now();
        let mut made = vec![(0.0, 0.0)];
        let enough = f64::from(PORTS) * 2.0;
        while begin.elapsed() < Duration::from_secs(3) || made[made.len() - 1].1 < enough {
            let next = self.few.client(lab, self.listening.address, |_| Ok(()))?;
            let mut count = made[made.len() - 1].1;
            match next {
                Ok(client) => {
                    close_first(lab, &self.listening, client)?;
                    count += 1.0;
                }
                Err(error) if is_exhausted(&error) => {
                    lab.wait(Duration::from_millis(20))?;
                }
                Err(error) => return Err(error).trying("connect"),
            }
            made.push((begin.elapsed().as_secs_f64(), count));
            if begin.elapsed() > PATIENCE {
                break;
            }
        }
        let (seconds, count) = made[made.len() - 1];
        lab.check(
            &format!("ports in TIME_WAIT are taken again: net.ipv4.tcp_tw_reuse is {reuse}"),
            count >= enough,
            &format!("{count} connections in {seconds:.1} s"),
        )?;
        lab.draw(Chart {
            title: format!("A client with {PORTS} ports that connects and closes whenever it can"),
            x: "seconds".to_owned(),
            y: "connections made".to_owned(),
            series: vec![Series {
                name: format!("{PORTS} per second, since each port is blocked for one"),
                style: Style::Steps,
                points: made,
            }],
            levels: Vec::new(),
            marks: Vec::new(),
        });
        lab.means(
            "TCP's timestamps make it safe: a second has to pass, so that the new connection's \
             timestamps are higher (net.ipv4.tcp_tw_reuse_delay, where the kernel has it).",
        );
        lab.means(match reuse {
            1 => "1 allows it for every outgoing connection. The default is 2: for loopback alone.",
            _ => {
                "2 is the default, and allows it for loopback alone. A client that connects over a \
                 network waits for the whole minute, unless this is 1 on its machine."
            }
        });
        Ok(())
    }

    /// For a kernel whose settings free a port only at the end of the minute.
    fn no_reuse(&mut self, lab: &mut Lab<'_>, why: &str) -> Result<(), Stop> {
        lab.step("Two seconds pass.")?;
        lab.wait(Duration::from_secs(2))?;
        let next = self.few.client(lab, self.listening.address, |_| Ok(()))?;
        let claim = format!("connect() still fails with EADDRNOTAVAIL: {why} here");
        self.refused(lab, &next, &claim)?;
        lab.means(
            "A port is free when its TIME_WAIT ends. It is free sooner only where all of these allow \
             it: net.ipv4.tcp_tw_reuse (1, or 2 over loopback), net.ipv4.tcp_timestamps, and a short \
             net.ipv4.tcp_tw_reuse_delay, where the kernel has that.",
        );
        Ok(())
    }

    /// The setting that is recommended most often, and is about another state.
    pub(super) fn fin_timeout(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        lab.step(&format!(
            "Does a lower net.ipv4.tcp_fin_timeout help ({} s here)? TCP_LINGER2 sets the same time \
             for one socket, without a privilege: {FIN_WAIT2} s. The client closes, the server does \
             not yet.",
            self.settings.fin_timeout
        ))?;
        lab.forget_ports();
        self.listening = lab.listen(64, Sharing::default())?;
        let client = self.few.client(lab, self.listening.address, |socket| {
            options::keep_fin_wait2_for(socket, FIN_WAIT2)
        })?;
        let client = client.trying("connect")?;
        let ends = client.ends;
        let server = accept(lab, &self.listening, ends)?;
        drop(client);
        lab.see(
            "the client is in FIN_WAIT2, without a process",
            &[ends.client_is(FinWait2), ends.server_is(CloseWait)],
        )?;
        let left = time_left(lab, ends)?;
        lab.check(
            &format!("FIN_WAIT2 lasts for the {FIN_WAIT2} s that were set"),
            (u64::from(FIN_WAIT2) / 2..=u64::from(FIN_WAIT2) + 1).contains(&left.as_secs()),
            &seconds(left),
        )?;
        drop(server);
        lab.see(
            "the server closes too: TIME_WAIT",
            &[ends.client_is(TimeWait), ends.server_is(None)],
        )?;
        let left = time_left(lab, ends)?;
        lab.check(
            "TIME_WAIT still lasts for 60 s",
            MOST_OF_A_MINUTE.contains(&left),
            &seconds(left),
        )?;
        lab.means(
            "tcp_fin_timeout bounds the wait for a peer that does not close. It frees no port of a \
             connection that both sides have closed.",
        );
        Ok(())
    }
}

/// The client closes first and has TIME_WAIT.
fn close_first(lab: &mut Lab<'_>, listening: &Listening, client: End) -> Result<Ends, Stop> {
    let ends = client.ends;
    let server = accept(lab, listening, ends)?;
    drop(client);
    lab.read_end(&server)?.trying("read")?;
    drop(server);
    await_time_wait(lab, ends)?;
    Ok(ends)
}

fn await_time_wait(lab: &mut Lab<'_>, ends: Ends) -> Result<(), Stop> {
    let found = lab.look_for(PATIENCE, |lab| {
        let socket = lab.socket(ends.client, ends.server)?;
        Ok(socket.filter(|socket| socket.state == TimeWait).map(drop))
    })?;
    found.ok_or_else(|| Stop::Cannot("cannot find the client in TIME_WAIT".to_owned()))
}

/// Returns the time left on the timer of the client's end.
fn time_left(lab: &mut Lab<'_>, ends: Ends) -> Result<Duration, Stop> {
    let socket = lab.socket(ends.client, ends.server)?;
    let timer = socket.and_then(|socket| socket.timer);
    let timer = timer.ok_or_else(|| Stop::Cannot("cannot read the client's timer".to_owned()))?;
    Ok(timer.left)
}

fn seconds(left: Duration) -> String {
    format!("{:.0} s are left", left.as_secs_f64())
}

/// Returns the setting that keeps a port in TIME_WAIT from being taken again during this lesson, if one
/// does.
fn why_never(settings: Settings) -> Result<Option<String>, Stop> {
    if settings.tw_reuse == 0 {
        return Ok(Some("net.ipv4.tcp_tw_reuse is 0".to_owned()));
    }
    if setting("tcp_timestamps")?.as_deref() == Some("0") {
        return Ok(Some("net.ipv4.tcp_timestamps is 0".to_owned()));
    }
    // In milliseconds; a second, where the kernel has no such setting.
    let delay = setting("tcp_tw_reuse_delay")?.and_then(|delay| delay.parse().ok());
    let is_long = delay.filter(|delay: &u64| *delay > LONG_DELAY);
    Ok(is_long.map(|delay| format!("net.ipv4.tcp_tw_reuse_delay is {delay} ms")))
}

/// Returns the value of a setting, or `None` where the kernel does not have it.
fn setting(name: &str) -> Result<Option<String>, Stop> {
    match fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).trying(&format!("read net.ipv4.{name}")),
    }
}
