//! A part of the door `session`: the backend of a flow that begins.
//!
//! Enters: a flow that its service admits. Leaves: a backend, and under affinity what is to be noted of
//! its client, as a proposal that `process` carries out once the session has begun.

use super::View;
use crate::session::{Affinity, Tuple};
use crate::tables::{Backend, ClientAffinity, Service};

/// What is noted of a choice under affinity.
pub(super) struct ByAffinity {
    pub(super) affinity: Affinity,
    /// Whether the client had this backend before.
    pub(super) is_kept: bool,
}

/// The backend of a new flow; `None` if none is usable. Under affinity it is the one that the client had
/// last, while that is usable.
pub(super) fn choose<'t>(
    view: &View<'t>,
    service: &'t Service,
    flow: &Tuple,
) -> Option<(&'t Backend, Option<ByAffinity>)> {
    let Some(ClientAffinity { service: number, timeout_s }) = service.affinity else {
        return Some((service.choose(flow)?, None));
    };
    let key = view.sessions.affinity_key(flow.source().address, number);
    let last = view.sessions.affine_backend(key, timeout_s, view.tick());
    let kept = last.and_then(|identity| service.backends.usable(identity));
    let backend = kept.or_else(|| service.choose(flow))?;
    let affinity = Affinity { key, backend: backend.identity() };
    Some((backend, Some(ByAffinity { affinity, is_kept: kept.is_some() })))
}
