//! Which worker has what: a core, queues of the NIC, a way to send by it.
//!
//! Enters: the configuration, and the NIC as it was opened. Leaves: what each worker is started with.
//! `start` alone calls it.

use netio::uplink::UplinkQueue;
use worker::cores::given;
use worker::{Idle, WorkerSpec, WorkerUplink};

use controlplane::config::{Config, WorkerSettings};
use controlplane::ports;

/// One worker a configured core, as far as there are queues.
pub(super) fn specs(
    config: &Config,
    queues: Option<Vec<UplinkQueue>>,
    choices: &mut Vec<String>,
) -> Vec<WorkerSpec> {
    let WorkerSettings { cores, idle_after_us, frames } = &config.workers;
    let cores: Vec<Option<usize>> = match cores {
        Some(cores) => cores.iter().copied().map(Some).collect(),
        None => vec![given().last().copied()],
    };
    let uplinks: Vec<_> = match queues {
        Some(queues) => shares(queues, cores.len(), choices).into_iter().map(Some).collect(),
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
            frames: *frames,
            fdb_max: config.bridge.fdb_max,
            fdb_ageing_ms: config.bridge.ageing_seconds * 1000,
            uplink,
        })
        .collect();
    choices.extend(specs.iter().map(choice));
    specs
}

/// What of the NIC each worker has: its queues, of which it sends by the first. There are as many
/// workers as queues at most.
fn shares(
    queues: Vec<UplinkQueue>,
    workers: usize,
    choices: &mut Vec<String>,
) -> Vec<WorkerUplink> {
    let count = queues.len();
    if workers > count {
        choices.push(format!(
            "workers: {count} instead of the {workers} configured, as the uplink has {count} \
             queue(s) and a queue belongs to one worker"
        ));
    }
    let own = deal(queues, workers.min(count)).into_iter();
    own.filter_map(|own| {
        let (mut numbered, mut senders) = (Vec::new(), Vec::new());
        for UplinkQueue { number, rx, tx } in own {
            numbered.push((number, rx));
            senders.push(tx);
        }
        let tx = senders.into_iter().next()?;
        Some(WorkerUplink { port: ports::UPLINK, queues: numbered, tx })
    })
    .collect()
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
            let queues: Vec<_> = uplink.queues.iter().map(|(queue, _)| queue.to_string()).collect();
            format!("queues [{}], sends by {}", queues.join(", "), uplink.tx.kind())
        }
    };
    let idle = match spec.idle {
        Idle::Spin => "never sleeps".into(),
        Idle::Micros(micros) => format!("sleeps after {micros} µs"),
    };
    format!("worker {}: core {core}, {uplink}, {} frames, {idle}", spec.id, spec.frames)
}

#[cfg(test)]
mod tests {
    use super::deal;

    #[test]
    fn queues_are_spread_evenly() {
        assert_eq!(deal((0..5).collect(), 2), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(deal(vec![0], 1), [vec![0]]);
    }
}
