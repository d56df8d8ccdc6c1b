//! The corridor: from a received packet to its verdict, and from the verdict to what leaves.
//!
//! ```text
//! rx -> [decap] -> parse -> bridge -> [route] -> verdict -> rewrite(+encap) -> tx
//!       uplink             L2         L3         decide | act
//! ```
//!
//! Left of the verdict a door only looks things up; the packet is borrowed, and a door that ends
//! the walk returns `Err(verdict)`. Right of it bytes are edited, and nothing is looked up but the
//! number that the verdict names.
//!
//! | door | file | ends a walk with |
//! |---|---|---|
//! | who sent this over the underlay | `decap`   | drops of foreign tunnel packets |
//! | where is what in these bytes    | `parse`   | drops of what is no frame |
//! | is what was left undone sound   | `offload` | drops of requests that contradict the packet |
//! | does it stay on its segment     | `bridge`  | `Forward`, `Tunnel`, `Flood`, `Answer` |
//! | does a bridged pod speak for itself | `claims` | drops of what is said in another's name |
//! | where does it go                | `route`   | `Route`, `Answer`, `Refuse` |
//! | make it so                      | `rewrite`, `reply`, `flood`, `segment`, `coalesce` | |

pub(crate) mod bridge;
mod claims;
pub(crate) mod coalesce;
pub(crate) mod decap;
pub(crate) mod flood;
mod offload;
pub(crate) mod parse;
pub(crate) mod reply;
pub(crate) mod rewrite;
pub(crate) mod route;
pub(crate) mod segment;

use frame::Offload;

use crate::Millis;
use crate::tables::{Fdb, FdbTarget, PortId, PortKind, Tables};
use crate::trace::Narrator;
use crate::verdict::{DropReason, Verdict};
use crate::wire::{Ecn, MacAddr};
use bridge::Step;
use decap::{Arrival, Origin};
use parse::Headers;

/// What a decision may look at.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) fdb: &'a Fdb,
    pub(crate) now: Millis,
}

/// A verdict with what `act` needs to carry it out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decision {
    pub(crate) verdict: Verdict,
    /// Where things are in the frame as it was received.
    pub(crate) headers: Headers,
    /// The source MAC, if it is one to be learned.
    pub(crate) learn: Option<Source>,
    /// What the inner packet's congestion mark becomes when the outer headers go (RFC 6040).
    pub(crate) ecn: Option<Ecn>,
    /// It came through the overlay, and does not go back there.
    pub(crate) from_overlay: bool,
}

/// A MAC seen as a source in a bridge domain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    pub(crate) bridge: crate::tables::BridgeId,
    pub(crate) mac: MacAddr,
    pub(crate) target: FdbTarget,
}

/// Decides what becomes of a packet that arrived by `ingress`. Reads only; forwarding, `trace` and
/// the fuzzer all come through here.
pub(crate) fn decide(
    view: &View<'_>,
    ingress: PortId,
    bytes: &[u8],
    offload: &Offload,
    narrator: &mut impl Narrator,
) -> Decision {
    let mut decision = Decision {
        verdict: Verdict::Drop(DropReason::PortGone),
        headers: Headers::default(),
        learn: None,
        ecn: None,
        from_overlay: false,
    };
    let end = doors(view, ingress, bytes, offload, &mut decision, narrator);
    decision.verdict = end.unwrap_or_else(|early| early);
    narrator.verdict(&decision.verdict);
    decision
}

fn doors(
    view: &View<'_>,
    ingress: PortId,
    bytes: &[u8],
    offload: &Offload,
    decision: &mut Decision,
    narrator: &mut impl Narrator,
) -> Result<Verdict, Verdict> {
    let port = view.tables.port(ingress).ok_or(Verdict::Drop(DropReason::PortGone))?;
    let arrival = match port.kind {
        PortKind::Uplink => decap::decap(view.tables, ingress, port, bytes, narrator)?,
        PortKind::Pod => Arrival::plain(ingress, port, Origin::Pod, bytes.len()),
        PortKind::Host => Arrival::plain(ingress, port, Origin::Host, bytes.len()),
    };
    decision.from_overlay = matches!(arrival.origin, Origin::Peer { .. });

    decision.headers = parse::parse(bytes, &arrival, narrator)?;
    decision.headers.piece_len = offload::offload(bytes, &decision.headers, offload)?;
    let headers = &decision.headers;
    decision.ecn = decap::congestion(&arrival, headers)?;

    let bridged = bridge::bridge(view, &arrival, bytes, headers, narrator);
    decision.learn = bridged.learn;
    match bridged.step? {
        Step::Done(verdict) => Ok(verdict),
        Step::Route => route::route(view, &arrival, bytes, headers, narrator),
    }
}
