//! What had to be put right of the node, how often, and whether it is put right again.
//!
//! Enters: what was found different from what it is to be, from `vswitchd`, which compares and puts
//! right. Leaves: when not to, because another program changes it back each time; and what `status`
//! reports of all that.

use std::collections::{BTreeMap, VecDeque};

use api::RepairStatus;
use dataplane::Millis;

use crate::change::Note;

/// So many repairs in so short a time are a fight with another program.
const MOST: usize = 3;
const WINDOW_MS: u64 = 10_000;
/// How long the other program's change is left alone.
const BACK_OFF_MS: u64 = 60_000;

/// A part of the node that is compared and put right by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The host port: interface, addresses, neighbours, routes.
    HostPort,
    /// The nftables table.
    NftTable,
    /// Kernel settings of the host port.
    Sysctl,
    /// Forwarding by the kernel.
    Forwarding,
    /// The XDP program on the NIC, and its map of peers.
    XdpProgram,
    /// The TAP beside the NIC, and the programs of tc between them.
    UplinkTap,
    /// The program of tc on the NIC that drops what packet sockets have.
    PacketSockets,
}

impl Part {
    /// Name of the part in sentences.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::HostPort => "the host port",
            Self::NftTable => "the nftables table inet vswitch",
            Self::Forwarding => "forwarding by the kernel",
            Self::XdpProgram => "the XDP program on the NIC",
            Self::UplinkTap => "the uplink's TAP with its programs of tc",
            Self::PacketSockets => "the program of tc beside the uplink's packet sockets",
            Self::Sysctl => "the kernel's setting for IPv6 on the host port",
        }
    }
}

/// What was put right, by part.
#[derive(Debug, Clone, Default)]
pub struct Repairs {
    records: BTreeMap<Part, Record>,
}

#[derive(Debug, Clone, Default)]
struct Record {
    count: u64,
    /// The latest repairs, oldest first; [`MOST`] at most.
    latest: VecDeque<Millis>,
    last: String,
    /// The program that had changed it, as far as the kernel reports it.
    by: Option<String>,
    waits_until: Option<Millis>,
    /// Why it cannot be put right.
    problem: Option<String>,
}

impl Repairs {
    /// Whether a part may be put right: no other program has just been fighting for it.
    #[must_use]
    pub fn is_allowed(&self, part: Part, now: Millis) -> bool {
        self.records
            .get(&part)
            .and_then(|record| record.waits_until)
            .is_none_or(|until| now >= until)
    }

    /// A part is as it should be.
    pub fn is_fine(&mut self, part: Part) {
        if let Some(record) = self.records.get_mut(&part) {
            record.problem = None;
        }
    }

    /// There is no such part any more: another has taken its place.
    pub fn is_no_more(&mut self, part: Part) {
        if let Some(record) = self.records.get_mut(&part) {
            (record.problem, record.waits_until) = (None, None);
            record.latest.clear();
        }
    }

    /// A part was put right: what had been wrong, and by which program if the kernel reported it. The line
    /// for the log.
    pub fn repaired(&mut self, part: Part, what: &str, by: Option<&str>, now: Millis) -> Note {
        let record = self.records.entry(part).or_default();
        record.count += 1;
        what.clone_into(&mut record.last);
        record.by = by.map(ToOwned::to_owned);
        record.problem = None;
        record.waits_until = None;
        if record.latest.len() == MOST {
            record.latest.pop_front();
        }
        record.latest.push_back(now);
        let by = by.map(|by| format!("; {by} did it")).unwrap_or_default();
        let label = part.label();
        let is_fight = record.latest.len() == MOST
            && record.latest.front().is_some_and(|first| now.since(*first) < WINDOW_MS);
        if is_fight {
            record.waits_until = Some(Millis(now.0 + BACK_OFF_MS));
            record.latest.clear();
            return Note::error(format!(
                "{label} was put right {MOST} times in {} s ({what}{by}); it is left as it is for {} s",
                WINDOW_MS / 1000,
                BACK_OFF_MS / 1000
            ));
        }
        Note::warning(format!("{label} is as it should be again: {what}{by}"))
    }

    /// A part cannot be put right. The line for the log, once.
    pub fn failed(&mut self, part: Part, why: &str) -> Option<Note> {
        let record = self.records.entry(part).or_default();
        if record.problem.as_deref() == Some(why) {
            return None;
        }
        record.problem = Some(why.to_owned());
        Some(Note::error(format!("{} cannot be put right: {why}", part.label())))
    }

    /// What was put right, for `status`.
    #[must_use]
    pub fn status(&self) -> Vec<RepairStatus> {
        let shown = self.records.iter().filter(|(_, record)| record.count > 0);
        shown
            .map(|(part, record)| RepairStatus {
                part: part.label().to_owned(),
                count: record.count,
                last: record.last.clone(),
                by: record.by.clone(),
            })
            .collect()
    }

    /// What is not as it should be now, for an operator.
    #[must_use]
    pub fn attention(&self, now: Millis) -> Vec<String> {
        self.broken(now).into_iter().map(|(_, sentence)| sentence).collect()
    }

    /// Parts that are not put right now, each with the reason.
    #[must_use]
    pub fn broken(&self, now: Millis) -> Vec<(Part, String)> {
        let mut broken = Vec::new();
        for (part, record) in &self.records {
            let label = part.label();
            if let Some(problem) = &record.problem {
                broken.push((*part, format!("{label} cannot be put right: {problem}")));
            }
            if let Some(until) = record.waits_until.filter(|until| now < *until) {
                let by = record.by.as_deref().unwrap_or("another program");
                let sentence = format!(
                    "{by} changes {label} again and again ({}); it is put right next in {} s: stop that program, or configure it to leave our part alone",
                    record.last,
                    until.since(now).div_ceil(1000)
                );
                broken.push((*part, sentence));
            }
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use dataplane::Millis;

    use super::{Part, Repairs};
    use crate::change::Level;

    const PART: Part = Part::HostPort;

    #[test]
    fn two_writers_do_not_fight_for_ever() {
        let mut repairs = Repairs::default();
        for second in 0..2 {
            let now = Millis(second * 1000);
            assert!(repairs.is_allowed(PART, now));
            let note = repairs.repaired(PART, "it was down", Some("process 7 (other)"), now);
            assert_eq!(note.level, Level::Warning, "{note:?}");
        }
        let now = Millis(9_000);
        let note = repairs.repaired(PART, "it was down", Some("process 7 (other)"), now);
        assert!(note.text.contains("3 times in 10 s") && note.text.contains("process 7 (other)"));
        assert!(!repairs.is_allowed(PART, Millis(68_999)));
        assert!(repairs.is_allowed(Part::NftTable, now), "other parts have nothing to do with it");
        let attention = repairs.attention(Millis(60_000));
        assert!(
            attention[0].starts_with("process 7 (other) changes the host port"),
            "{attention:?}"
        );
        assert!(attention[0].contains("in 9 s"), "{attention:?}");
        assert!(repairs.is_allowed(PART, Millis(69_000)));
        assert_eq!(repairs.attention(Millis(69_000)), Vec::<String>::new());
        assert_eq!(repairs.status()[0].count, 3);
    }

    #[test]
    fn one_repair_now_and_then_is_no_fight() {
        let mut repairs = Repairs::default();
        for time in 0..20 {
            let now = Millis(time * 5_001);
            assert!(repairs.is_allowed(PART, now));
            assert_eq!(repairs.repaired(PART, "it was down", None, now).level, Level::Warning);
        }
    }

    #[test]
    fn a_part_that_another_has_replaced_needs_nobody() {
        let mut repairs = Repairs::default();
        repairs.failed(PART, "the kernel refuses");
        (0..3).for_each(|time| drop(repairs.repaired(PART, "it was down", None, Millis(time))));
        repairs.failed(PART, "the kernel refuses");
        assert_eq!(repairs.attention(Millis(3)).len(), 2);
        repairs.is_no_more(PART);
        assert_eq!(repairs.attention(Millis(3)), Vec::<String>::new());
        assert_eq!(repairs.status()[0].count, 3, "what was done stays counted");
    }

    #[test]
    fn what_cannot_be_put_right_is_logged_once_and_told_until_it_is() {
        let mut repairs = Repairs::default();
        assert!(repairs.failed(PART, "the kernel refuses").is_some());
        assert_eq!(repairs.failed(PART, "the kernel refuses"), None);
        assert_eq!(repairs.attention(Millis(0)).len(), 1);
        repairs.is_fine(PART);
        assert_eq!(repairs.attention(Millis(0)).len(), 0);
        assert!(repairs.failed(PART, "the kernel refuses").is_some());
    }
}
