//! `show drops` and `trace`: what becomes of packets.

use api::{DropCount, Drops, TraceResult};

use super::table::{Table, line};

pub(super) fn drops(drops: &Drops) -> String {
    let mut text =
        if drops.reasons.is_empty() { String::new() } else { counts(&drops.reasons) + "\n" };
    let (entered, left) = (drops.received + drops.made, drops.sent + drops.dropped);
    line(
        &mut text,
        &format!(
            "received {} + made {} = {entered}; sent {} + dropped {} = {left}",
            drops.received, drops.made, drops.sent, drops.dropped
        ),
    );
    // Counters are read one after the other while workers count on.
    if entered != left {
        line(&mut text, &format!("{} in flight while this was read", entered.abs_diff(left)));
    }
    if !drops.kernel.is_empty() {
        line(&mut text, "\nin no sum above: dropped by the kernel, before or after the switch");
        text.push_str(&counts(&drops.kernel));
    }
    text
}

fn counts(drops: &[DropCount]) -> String {
    let mut table = Table::new(&["PORT", "REASON", "PACKETS", "EXPLANATION"]);
    for drop in drops {
        table.row([
            drop.port.clone(),
            drop.reason.clone(),
            drop.packets.to_string(),
            drop.explanation.clone(),
        ]);
    }
    table.print()
}

pub(super) fn trace(trace: &TraceResult) -> String {
    let mut text = String::new();
    line(&mut text, &trace.packet);
    for door in &trace.doors {
        line(&mut text, &format!("  {:<9}{}", door.door, door.said));
    }
    line(&mut text, &trace.verdict);
    for leaves in &trace.leaves {
        line(&mut text, &format!("-> {leaves}"));
    }
    text
}
