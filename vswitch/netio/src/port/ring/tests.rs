//! A ring over socketpairs: no privileges.

use std::io::{self, Write as _};

use frame::{Checksum, Offload, Packet, Pool};

use super::{BATCH, Done, PortRing};
use crate::port::{IoCosts, PortFd, Recv, SendError};

/// `None`, with a message, where the kernel or a sandbox has no io_uring.
fn ring() -> Option<PortRing<u32>> {
    let skip = |error: &io::Error| {
        let _ = writeln!(io::stderr(), "SKIPPED: there can be no ring ({error})");
    };
    PortRing::new(8).inspect_err(skip).ok()
}

fn packet(pool: &Pool, byte: u8) -> Packet {
    let mut packet = Packet::plain(pool.alloc().expect("a frame is free"));
    packet.frame.extend_from_slice(&[byte; 60]).expect("room");
    packet
}

fn empty(pool: &Pool) -> Packet {
    Packet::plain(pool.alloc().expect("a frame is free"))
}

fn run(ring: &mut PortRing<u32>) -> Vec<Done<u32>> {
    let mut all = Vec::new();
    ring.run(|done| all.push(done)).expect("the kernel does not refuse");
    all
}

#[test]
fn a_batch_of_writes_and_reads_happens_in_its_order() {
    let Some(mut ring) = ring() else { return };
    let pool = Pool::new(16);
    let (a, b) = PortFd::pair().expect("a socketpair");
    ring.register(3, &a).expect("a place");
    ring.register(4, &b).expect("a place");
    let partial = Checksum::Partial { start: 34, offset: 16 };
    for byte in 1..=3 {
        let mut packet = packet(&pool, byte);
        packet.offload = Offload { checksum: partial, gso: None };
        ring.write(3, &a, packet, byte.into()).expect("room");
    }
    for _ in 0..4 {
        ring.read(4, &b, empty(&pool)).expect("room");
    }
    assert_eq!(pool.available(), 16 - 7, "the ring has them");
    let mut done = run(&mut ring).into_iter();
    for byte in 1..=3 {
        let Some(Done::Write(packet, note, Ok(()))) = done.next() else { panic!("a write") };
        assert_eq!((note, &packet.frame[..]), (u32::from(byte), &[byte; 60][..]));
    }
    for byte in 1..=3 {
        let Some(Done::Read(packet, Recv::Packet)) = done.next() else { panic!("a read") };
        assert_eq!(packet.frame[..], [byte; 60]);
        assert_eq!(packet.offload.checksum, partial);
    }
    let Some(Done::Read(packet, Recv::WouldBlock)) = done.next() else { panic!("no more") };
    assert!(packet.frame.is_empty());
    drop((packet, done));
    assert_eq!(pool.available(), 16);
}

#[test]
fn each_failure_is_told_as_by_a_system_call() {
    let Some(mut ring) = ring() else { return };
    let pool = Pool::new(8);
    let (a, b) = PortFd::pair().expect("a socketpair");
    ring.register(0, &a).expect("a place");
    let (refused, error) = ring
        .write(
            0,
            &a,
            {
                let mut runt = packet(&pool, 1);
                runt.frame.truncate(13);
                runt
            },
            0,
        )
        .expect_err("a runt");
    assert_eq!((refused.frame.len(), error), (13, SendError::Refused));
    drop(b);
    ring.write(0, &a, packet(&pool, 1), 7).expect("room");
    ring.read(0, &a, empty(&pool)).expect("room");
    ring.write(5, &a, packet(&pool, 1), 8).expect("room");
    let done = run(&mut ring);
    assert!(matches!(done[0], Done::Write(_, 7, Err(SendError::Gone))), "{done:?}");
    assert!(matches!(done[1], Done::Read(_, Recv::Gone)), "{done:?}");
    assert!(matches!(done[2], Done::Write(_, 8, Err(SendError::Gone))), "no file there: {done:?}");
}

#[test]
fn a_full_queue_refuses_the_rest_of_a_batch_in_order() {
    let Some(mut ring) = ring() else { return };
    let pool = Pool::new(1024);
    let (a, b) = PortFd::pair().expect("a socketpair");
    ring.register(0, &a).expect("a place");
    let mut sent = 0_u32;
    let refused = loop {
        for _ in 0..BATCH {
            ring.write(0, &a, packet(&pool, 9), 0).expect("room");
        }
        let outcomes = run(&mut ring);
        let taken = outcomes.iter().take_while(|done| matches!(done, Done::Write(_, _, Ok(()))));
        let taken = taken.count();
        sent += taken as u32;
        if taken < BATCH {
            break outcomes.into_iter().skip(taken).collect::<Vec<_>>();
        }
    };
    assert!(
        refused.iter().all(|done| matches!(done, Done::Write(_, _, Err(SendError::WouldBlock))))
    );
    drop(refused);
    let mut into = empty(&pool);
    let received = std::iter::repeat_with(|| b.recv(&mut into)).take_while(|r| *r == Recv::Packet);
    assert_eq!(received.count() as u32, sent);
}

#[test]
fn a_batch_has_an_end_and_gives_back_what_it_has_no_room_for() {
    let Some(mut ring) = ring() else { return };
    let pool = Pool::new(BATCH as u32 + 1);
    let (a, _b) = PortFd::pair().expect("a socketpair");
    ring.register(0, &a).expect("a place");
    for room in (1..=BATCH).rev() {
        assert_eq!(ring.room(), room);
        ring.read(0, &a, empty(&pool)).expect("room");
    }
    ring.read(0, &a, empty(&pool)).expect_err("none left");
    ring.write(0, &a, packet(&pool, 1), 1).expect_err("none left");
    assert_eq!(run(&mut ring).len(), BATCH);
    assert!(ring.is_empty());
}

#[test]
fn a_removed_port_is_closed_though_the_ring_had_it() {
    let Some(mut ring) = ring() else { return };
    let pool = Pool::new(2);
    let (a, b) = PortFd::pair().expect("a socketpair");
    ring.register(0, &a).expect("a place");
    ring.write(0, &a, packet(&pool, 1), 0).expect("room");
    run(&mut ring);
    ring.unregister(0).expect("there was one");
    drop(a);
    let mut into = empty(&pool);
    assert_eq!(b.recv(&mut into), Recv::Packet);
    assert_eq!(b.recv(&mut into), Recv::Gone, "nothing holds the other end");
    ring.unregister(0).expect("an empty place may be emptied");
}

#[test]
fn packets_that_were_never_submitted_come_back_with_the_ring() {
    let Some(mut ring) = ring() else { return };
    let pool = Pool::new(2);
    let (a, b) = PortFd::pair().expect("a socketpair");
    ring.register(0, &a).expect("a place");
    ring.write(0, &a, packet(&pool, 1), 0).expect("room");
    drop(ring);
    assert_eq!(pool.available(), 2);
    assert_eq!(b.recv(&mut empty(&pool)), Recv::WouldBlock);
}

/// Another thread than the one that made it: the kernel refuses the batch (EEXIST).
#[test]
fn a_batch_that_the_kernel_refuses_comes_back_and_the_ring_takes_no_more() {
    let (a, b) = PortFd::pair().expect("a socketpair");
    let made = std::thread::spawn(|| ring().map(Moved)).join().expect("it does not panic");
    let Some(Moved(mut ring)) = made else { return };
    let pool = Pool::new(4);
    // The place is empty, as registering is the maker's, too.
    ring.write(0, &a, packet(&pool, 1), 0).expect("room");
    ring.read(0, &a, empty(&pool)).expect("room");
    let mut all = Vec::new();
    let error: io::Error = ring.run(|done| all.push(done)).expect_err("the thread is another");
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
    assert!(matches!(all[0], Done::Write(_, 0, Err(SendError::WouldBlock))), "{all:?}");
    assert!(matches!(all[1], Done::Read(_, Recv::WouldBlock)), "{all:?}");
    all.clear();
    assert_eq!(pool.available(), 4);
    ring.read(0, &b, empty(&pool)).expect_err("it must not be used any more");
    ring.run(|_| panic!("nothing was given")).expect("nothing to do");
}

/// A ring without packets, on its way to another thread.
struct Moved(PortRing<u32>);

// SAFETY: only its pool's handles tie a ring to a thread, and it has none.
unsafe impl Send for Moved {}

/// Container runtimes' filters of system calls do this. The filter is the thread's alone.
#[test]
fn where_seccomp_refuses_there_is_no_ring_and_nothing_to_measure() {
    let refused = std::thread::spawn(|| {
        refuse_io_uring();
        let ring = PortRing::<u32>::new(8).err().and_then(|error| error.raw_os_error());
        let costs = IoCosts::measure().err().and_then(|error| error.raw_os_error());
        [ring, costs]
    });
    let refused = refused.join().expect("it does not panic");
    assert_eq!(refused, [Some(libc::EPERM); 2]);
}

fn refuse_io_uring() {
    // SAFETY: makes values of integers.
    let filter = unsafe {
        // The number is the first word of `struct seccomp_data`.
        let load = libc::BPF_STMT((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0);
        let setup = libc::SYS_io_uring_setup as u32;
        let is_setup =
            libc::BPF_JUMP((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, setup, 0, 1);
        let answer = |what| libc::BPF_STMT((libc::BPF_RET | libc::BPF_K) as u16, what);
        let refuse = answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
        [load, is_setup, refuse, answer(libc::SECCOMP_RET_ALLOW)]
    };
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: changes what this thread may do; it takes integers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the kernel reads the program, which outlives the call. The filter is this thread's.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}
