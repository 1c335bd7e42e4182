//! The parts that every message passes, each by itself: the ring, the headers of its frames, the
//! table of connections, and the wheel of timers. `make bench-parts`, or `make bench-parts ROWS=ring` for some of them.
//!
//! For changes to one of these parts. `make bench` measures their effect on a server.

use std::hint::{black_box, spin_loop};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tine::testing::parts::{Reader, Table, Timers, Writer, headers, ring};

/// The capacity of an outbox.
const CAPACITY: usize = 1 << 20;

/// Number of frames that are published together.
const BATCH: u64 = 32;

/// Connections of the large table: too many for a first-level cache.
const MANY: usize = 10_000;

/// Distance between two lookups, so that the next connection is not beside the last one in memory.
const STRIDE: usize = 4_099;

criterion_group!(parts, rings, codec, table, timers);
criterion_main!(parts);

fn rings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    for (name, size) in [("64 B", 64), ("4 KiB", 4 << 10), ("64 KiB", 64 << 10)] {
        let body = vec![7; size];
        let (mut writer, mut reader) = ring(CAPACITY).expect("a ring");
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("{name}, put and take"), |bencher| {
            bencher.iter(|| pass(&mut writer, &mut reader, &body));
        });
    }
    let (mut writer, mut reader) = ring(CAPACITY).expect("a ring");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function(format!("64 B, {BATCH} published together"), |bencher| {
        bencher.iter(|| {
            (0..BATCH).for_each(|_| assert!(writer.put(&[7; 64])));
            writer.publish();
            (0..BATCH).for_each(|_| assert_eq!(reader.take(), Some(64)));
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("64 B, to another core and back", round_trip);
    group.finish();
}

fn pass(writer: &mut Writer, reader: &mut Reader, body: &[u8]) {
    assert!(writer.put(body));
    writer.publish();
    assert_eq!(reader.take(), Some(body.len() as u32));
}

/// Both sides stay awake and poll, like a reactor and a worker under load: the cost of the cache lines,
/// without that of wake-ups.
fn round_trip(bencher: &mut criterion::Bencher<'_>) {
    let (mut there, mut their_end) = ring(CAPACITY).expect("a ring");
    let (mut their_answers, mut back) = ring(CAPACITY).expect("a ring");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                match their_end.take() {
                    Some(_) => {
                        assert!(their_answers.put(&[7; 64]));
                        their_answers.publish();
                    }
                    None => spin_loop(),
                }
            }
        });
        bencher.iter(|| {
            assert!(there.put(&[7; 64]));
            there.publish();
            while back.take().is_none() {
                spin_loop();
            }
        });
        is_over.store(true, Ordering::Relaxed);
    });
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    let codec = black_box(headers());
    group.bench_function("a message's header, encoded", |bencher| {
        bencher.iter(|| black_box(&codec).encode_input());
    });
    group.bench_function("a message's header, decoded", |bencher| {
        bencher.iter(|| black_box(&codec).decode_input());
    });
    group.bench_function("an answer's header, encoded", |bencher| {
        bencher.iter(|| black_box(&codec).encode_output());
    });
    group.bench_function("an answer's header, checked and decoded", |bencher| {
        bencher.iter(|| black_box(&codec).decode_output());
    });
    group.finish();
}

fn table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table");
    for size in [1, MANY] {
        let mut table = Table::new((0..size).map(|_| socket())).expect("a table");
        let (mut number, stride) = (0, STRIDE % size);
        // Without a division, which takes as long as the lookup.
        let mut next = move || {
            number += stride;
            number -= if number >= size { size } else { 0 };
            number
        };
        group.bench_function(format!("of {size}, one is found by its id"), |bencher| {
            bencher.iter(|| assert!(table.find(next())));
        });
        group.bench_function(
            format!("of {size}, one is queued as due and taken"),
            |bencher| {
                bencher.iter(|| assert!(table.touch(next())));
            },
        );
        group.bench_function(format!("of {size}, one is added and removed"), |bencher| {
            bencher.iter_batched(
                || socket().expect("a socket"),
                |socket| assert!(table.come_and_go(socket).expect("it is watched")),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Neighbours in memory follow each other, as with connections that came one after the other: what is timed is
/// the wheel, and not the memory of the machine.
fn timers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timers");
    for size in [1_000, 1_000_000] {
        let mut timers = Timers::new(size);
        let mut number = 0;
        let mut next = move || {
            number += 1;
            number -= if number >= size { size } else { 0 };
            number
        };
        group.bench_function(format!("of {size}, one is set and removed"), |bencher| {
            bencher.iter(|| assert!(timers.set_and_remove(next())));
        });
        group.bench_function(format!("of {size}, one is restarted"), |bencher| {
            bencher.iter(|| timers.restart(next()));
        });
        let mut timers = Timers::new(size);
        group.bench_function(
            format!("of {size}, one passes and is set again"),
            |bencher| {
                bencher.iter(|| assert!(timers.pass()));
            },
        );
    }
    group.finish();
}

fn socket() -> std::io::Result<OwnedFd> {
    UnixDatagram::unbound().map(OwnedFd::from)
}
