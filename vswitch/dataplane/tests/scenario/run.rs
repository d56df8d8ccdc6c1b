//! Runs one case: each packet through `trace` and `process`, each expectation held against both.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use dataplane::counters::Counters;
use dataplane::tables::{Fdb, PortId};
use dataplane::{Dataplane, DropReason, Millis};
use frame::Pool;

use super::{Case, Line, Step, ledger};
use crate::node::egress::Sent;
use crate::node::packet::at_port;
use crate::node::topology::START;
use crate::node::{Described, Node, Ports};

pub(crate) struct Run {
    node: Node,
    dataplane: Dataplane,
    counters: Arc<Counters>,
    pool: Pool,
    /// Of the same size, so that a trace runs out of frames where forwarding does.
    trace_pool: Pool,
    ports: Ports,
    now: Millis,
    /// Source ports that were given a name.
    seen: HashMap<String, u16>,
    /// What the case saw dropped, by label.
    pub(crate) reasons: BTreeSet<DropReason>,
    /// Whether it names what policies decide.
    names_decisions: bool,
}

fn names_decisions(step: &Step) -> bool {
    let Step::Packet { counts, .. } = step else { return false };
    counts.iter().flat_map(|line| line.text.split(',')).any(|item| ledger::is_decision(item.trim()))
}

impl Run {
    /// The case from end to end.
    pub(crate) fn case(case: &Case) -> Result<Self, String> {
        let node = Node::parse(case.topology.iter().map(String::as_str))?;
        let (pool, counters) = (Pool::new(node.frames), Arc::new(Counters::new()));
        let fdb = Fdb::new(node.fdb_entries, node.ageing_ms);
        let mut run = Self {
            dataplane: Dataplane::new(fdb, pool.clone(), Arc::clone(&counters), node.sessions()),
            trace_pool: Pool::new(node.frames),
            node,
            counters,
            pool,
            ports: Ports::default(),
            now: START,
            seen: HashMap::new(),
            reasons: BTreeSet::new(),
            names_decisions: case.steps.iter().any(names_decisions),
        };
        for step in &case.steps {
            let (line, result) = match step {
                Step::Packet { input, leaves, counts } => {
                    (input, run.packet(input, leaves, counts))
                }
                Step::Pass { line } => (line, run.pass(&line.text)),
                Step::Change { line } => (line, run.node.line(&line.text)),
                Step::Fail { line } => (line, run.fail(&line.text)),
                Step::Compare { line } => (line, run.compare(&line.text)),
            };
            result.map_err(|error| format!("{}: {}\n{error}", line.number, case.title))?;
        }
        Ok(run)
    }

    fn packet(&mut self, input: &Line, leaves: &[Line], counts: &[Line]) -> Result<(), String> {
        let before = ledger::read(&self.node.ports, &self.counters, &self.dataplane);
        let bytes_before = self.bytes();
        let (port, text) = at_port(&self.node, &input.text)?;
        self.ports.sent.clear();
        let mut received = 0;
        let mut last = Described::default();
        if let Some(label) = text.strip_prefix("unreadable ") {
            self.dataplane.unreadable(port, reason(label)?);
        } else if let Some(text) = text.strip_prefix("not-handed-over ") {
            last = Described::parse(&self.node, text, &[])?;
            received += last.bytes.len() as u64;
            self.dataplane.not_handed_over(port, &last.bytes);
        } else {
            let (times, text) = repeated(text)?;
            for number in 0..times {
                last = Described::parse(&self.node, &numbered(text, number), &[])?;
                received += last.bytes.len() as u64;
                self.process(port, &last, times == 1)?;
            }
            self.ports.end_batch(&mut self.dataplane, &self.node.tables);
        }
        self.release();
        let noted: Vec<_> = self.dataplane.take_path_mtus().collect();
        self.left(&last, leaves)?;

        let mut after = ledger::read(&self.node.ports, &self.counters, &self.dataplane);
        for noted in noted {
            after.insert(format!("mtu to {}", noted.address), noted.mtu.into());
        }
        let mut moved = ledger::moved(&before, &after);
        let mut named = BTreeMap::new();
        for line in counts {
            named.extend(ledger::parse(&line.text, &after)?);
        }
        if !self.names_decisions {
            moved.retain(|name, _| !ledger::is_decision(name));
        }
        if moved != named {
            return Err(format!("  counted: {}\n  named:   {}", list(&moved), list(&named)));
        }
        self.reasons.extend(
            DropReason::ALL.iter().filter(|reason| {
                named.keys().any(|name| name.ends_with(&format!("drop {reason}")))
            }),
        );
        let (rx, tx) = (self.bytes().0 - bytes_before.0, self.bytes().1 - bytes_before.1);
        let sent: usize = self.ports.sent.iter().map(|sent| sent.bytes.len()).sum();
        if (rx, tx) != (received, sent as u64) {
            return Err(format!("counted {rx} bytes in and {tx} out, were {received} and {sent}"));
        }
        let all = self.counters.accounting();
        if all.received + all.made != all.sent + all.dropped {
            return Err(format!("the accounting does not close: {all:?}"));
        }
        if self.pool.available() != self.pool.total() {
            return Err("a frame was lost".into());
        }
        Ok(())
    }

    /// Time passes until nothing waits for the rate of a port.
    fn release(&mut self) {
        while let Some(due) = self.dataplane.due() {
            self.dataplane.turn(&self.node.tables, due, &mut self.ports);
        }
    }

    /// Through `trace` first, which must foretell what leaves and leave no mark. That there is no room
    /// for a session shows when it is to be put into the table, which no trace does.
    fn process(&mut self, port: PortId, packet: &Described, foretold: bool) -> Result<(), String> {
        let before = ledger::read(&self.node.ports, &self.counters, &self.dataplane);
        let traced = packet.packet(&self.trace_pool);
        let tables = &self.node.tables;
        let trace = self.dataplane.trace(tables, &self.trace_pool, port, traced, self.now);
        if ledger::read(&self.node.ports, &self.counters, &self.dataplane) != before {
            return Err("the trace left a mark".into());
        }
        let had_no_room = |run: &Self| {
            let drops = |reason| run.counters.drops(port, reason);
            drops(DropReason::SessionQuota) + drops(DropReason::SessionPortsUsed)
        };
        let refused = had_no_room(self);
        let first = self.ports.sent.len();
        let received = packet.packet(&self.pool);
        self.dataplane.process(tables, port, received, self.now, &mut self.ports);
        if foretold {
            self.ports.end_batch(&mut self.dataplane, tables);
        }
        let sent = self.ports.sent[first..].iter();
        let left: Vec<_> = sent.map(|sent| (sent.port, sent.bytes.clone())).collect();
        let foretold = foretold && had_no_room(self) == refused;
        if foretold && self.ports.failing.is_empty() && left != trace.leaves {
            return Err(format!("the trace foretold otherwise: {trace:?}"));
        }
        Ok(())
    }

    /// What left is what the lines say, port by port in order, and nothing else.
    fn left(&mut self, input: &Described, leaves: &[Line]) -> Result<(), String> {
        let mut sent = self.ports.sent.clone();
        for line in leaves {
            let (port, text) = at_port(&self.node, &line.text)?;
            let (times, text) = repeated(text)?;
            for number in 0..times {
                let text = numbered(text, number);
                let quoted = &input.bytes[input.l3.min(input.bytes.len())..];
                let expected = Described::parse(&self.node, &text, quoted)
                    .map_err(|error| format!("line {}: {error}", line.number))?;
                let at = sent.iter().position(|sent| sent.port == port);
                let Some(at) = at else {
                    return Err(format!("line {}: nothing left by that port", line.number));
                };
                let found = sent.remove(at);
                expected
                    .compare(&found.bytes, &found.offload)
                    .and_then(|()| self.wild(&expected, &found))
                    .map_err(|error| {
                        let (wanted, found) = (dump(&expected.bytes), dump(&found.bytes));
                        format!("line {}: {error}\nexpected\n{wanted}found\n{found}", line.number)
                    })?;
            }
        }
        match sent.first() {
            None => Ok(()),
            Some(extra) => {
                let port = &self.node.ports[usize::from(extra.port.0)];
                Err(format!("{} more left, first by {port}\n{}", sent.len(), dump(&extra.bytes)))
            }
        }
    }

    /// A source port of ours is from the dynamic range (RFC 7348, section 5); the same name means
    /// the same port.
    fn wild(&mut self, expected: &Described, found: &Sent) -> Result<(), String> {
        for (at, name) in &expected.wild {
            let port = u16::from_be_bytes([found.bytes[*at], found.bytes[at + 1]]);
            if port < 49_152 {
                return Err(format!("source port {port} is not from the dynamic range"));
            }
            if name != "*" && *self.seen.entry(name.clone()).or_insert(port) != port {
                return Err(format!("{name} was {}, now {port}", self.seen[name]));
            }
        }
        Ok(())
    }

    fn pass(&mut self, text: &str) -> Result<(), String> {
        let parsed = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
            (Some(ms), _) => ms.parse::<u64>().ok(),
            (_, Some(s)) => s.parse::<u64>().ok().map(|s| s * 1000),
            _ => None,
        };
        self.now.0 += parsed.ok_or(format!("`{text}`: 300s or 5ms"))?;
        Ok(())
    }

    fn fail(&mut self, text: &str) -> Result<(), String> {
        let (port, how) = text.split_once(' ').ok_or("PORT REASON")?;
        let port = self.node.port(port)?;
        if how == "ok" {
            self.ports.failing.remove(&port).ok_or("the port does not fail")?;
        } else {
            self.ports.failing.insert(port, reason(how)?);
        }
        Ok(())
    }

    fn compare(&self, text: &str) -> Result<(), String> {
        let (a, b) = text.split_once(" != ").ok_or("$x != $y")?;
        let value = |name: &str| self.seen.get(name).ok_or(format!("{name} was not seen"));
        if value(a)? == value(b)? { Err(format!("both are {}", value(a)?)) } else { Ok(()) }
    }

    fn bytes(&self) -> (u64, u64) {
        let ports = (0..self.node.ports.len()).map(|port| self.counters.port(PortId(port as u16)));
        ports.fold((0, 0), |(rx, tx), port| (rx + port.rx_bytes, tx + port.tx_bytes))
    }
}

fn reason(label: &str) -> Result<DropReason, String> {
    let found = DropReason::ALL.iter().find(|reason| reason.label() == label.trim());
    found.copied().ok_or(format!("`{label}` is no reason"))
}

/// `x300 eth ...`
fn repeated(text: &str) -> Result<(u32, &str), String> {
    match text.strip_prefix('x').and_then(|rest| rest.split_once(' ')) {
        Some((times, rest)) => {
            times.parse().map(|times| (times, rest)).map_err(|_| format!("`x{times}`"))
        }
        None => Ok((1, text)),
    }
}

fn numbered(text: &str, number: u32) -> String {
    let [.., high, low] = number.to_be_bytes();
    text.replace("{n}", &format!("{high:02x}:{low:02x}"))
}

fn list(moved: &BTreeMap<String, i64>) -> String {
    let items: Vec<_> = moved.iter().map(|(name, by)| format!("{name} {by:+}")).collect();
    items.join(", ")
}

fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (row, line) in bytes.chunks(16).enumerate().take(12) {
        let hex: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "    {:4}  {}", row * 16, hex.join(" ")).expect("a String takes all");
    }
    writeln!(text, "    {} bytes", bytes.len()).expect("a String takes all");
    text
}
