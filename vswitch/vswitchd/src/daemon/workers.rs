//! Which worker has what: a core, queues of the NIC, a way to send by it.
//!
//! Enters: the configuration, and the NIC as it was opened. Leaves: what each worker is started with.
//! `start` and `fallback` call it.

use netio::uplink::{UplinkKind, UplinkQueue};
use worker::cores::given;
use worker::{Idle, PortIo, WorkerSpec, WorkerUplink};

use crate::error::chain;
use crate::uplink::OpenUplink;
use controlplane::config::{Config, PortIoSetting, WorkerSettings};
use controlplane::ports;

/// One worker a configured core; fewer, with a warning, if one could not send by the NIC.
pub(super) fn specs(
    config: &Config,
    uplink: Option<(&OpenUplink, Vec<UplinkQueue>)>,
    choices: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Vec<WorkerSpec> {
    let WorkerSettings { cores, idle_after_us, frames, port_io, .. } = &config.workers;
    let port_io = match port_io {
        PortIoSetting::Auto => PortIo::Auto,
        PortIoSetting::IoUring => PortIo::IoUring,
        PortIoSetting::ReadWrite => PortIo::ReadWrite,
    };
    let cores: Vec<Option<usize>> = match cores {
        Some(cores) => cores.iter().copied().map(Some).collect(),
        None => vec![given().last().copied()],
    };
    let uplinks: Vec<_> = match uplink {
        Some((uplink, queues)) => {
            shares(uplink, queues, cores.len(), warnings).into_iter().map(Some).collect()
        }
        None => cores.iter().map(|_| None).collect(),
    };
    let idle = idle_after_us.map_or(Idle::Spin, Idle::Micros);
    let specs: Vec<_> = cores
        .into_iter()
        .zip(uplinks)
        .enumerate()
        .map(|(id, (core, uplink))| WorkerSpec {
            id,
            core,
            idle,
            port_io,
            frames: *frames,
            fdb_max: config.bridge.fdb_max,
            fdb_ageing_ms: config.bridge.ageing_seconds * 1000,
            uplink,
        })
        .collect();
    choices.extend(specs.iter().map(choice));
    specs
}

/// What of the NIC each worker has: its queues, of which it sends by the first, or no queue and a
/// transmit handle beside them.
pub(super) fn shares(
    uplink: &OpenUplink,
    queues: Vec<UplinkQueue>,
    workers: usize,
    warnings: &mut Vec<String>,
) -> Vec<WorkerUplink> {
    let queue_count = queues.len();
    let mut shares = Vec::with_capacity(workers);
    for own in deal(queues, workers) {
        let (mut numbered, mut senders) = (Vec::new(), Vec::new());
        for UplinkQueue { number, rx, tx } in own {
            numbered.push((number, rx));
            senders.push(tx);
        }
        let tx = match senders.into_iter().next() {
            Some(tx) => tx,
            None => match uplink.extra_tx() {
                Ok(tx) => tx,
                Err(error) => {
                    warnings.push(format!(
                        "workers: {} instead of the {workers} configured, as the uplink has \
                         {queue_count} queue(s) and a worker without one cannot send: {}",
                        shares.len(),
                        chain(&error)
                    ));
                    break;
                }
            },
        };
        shares.push(WorkerUplink { port: ports::UPLINK, queues: numbered, tx });
    }
    shares
}

/// Deals things out, one to each hand in turn.
fn deal<T>(things: Vec<T>, hands: usize) -> Vec<Vec<T>> {
    let mut dealt: Vec<Vec<T>> = (0..hands).map(|_| Vec::new()).collect();
    for (index, thing) in things.into_iter().enumerate() {
        dealt[index % hands].push(thing);
    }
    dealt
}

fn choice(spec: &WorkerSpec) -> String {
    let core = spec.core.map_or_else(|| "any".into(), |core| core.to_string());
    let uplink = match &spec.uplink {
        None => "no uplink".into(),
        Some(uplink) => {
            let queues: Vec<_> = uplink.queues.iter().map(|(queue, _)| *queue).collect();
            share_words(&queues, Some(uplink.tx.kind()))
        }
    };
    let idle = match spec.idle {
        Idle::Spin => "never sleeps".into(),
        Idle::Micros(micros) => format!("sleeps after {micros} µs"),
    };
    format!("worker {}: core {core}, {uplink}, {} frames, {idle}", spec.id, spec.frames)
}

/// What a worker has of the NIC, in words.
pub(super) fn share_words(queues: &[u32], sends_by: Option<UplinkKind>) -> String {
    let Some(kind) = sends_by else { return "no uplink".to_owned() };
    let queues: Vec<_> = queues.iter().map(ToString::to_string).collect();
    format!("queues [{}], sends by {kind}", queues.join(", "))
}

#[cfg(test)]
mod tests {
    use super::deal;

    #[test]
    fn queues_are_spread_evenly() {
        assert_eq!(deal((0..5).collect(), 2), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(deal(vec![0], 1), [vec![0]]);
        assert_eq!(deal(vec![0], 2), [vec![0], vec![]]);
    }
}
