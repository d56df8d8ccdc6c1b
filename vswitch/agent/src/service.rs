//! Services: what this node is to serve of the cluster's Services.
//!
//! ```text
//!   Service       --judge-> ClusterService --+
//!                                            +-> translate -> ServiceSpec -> held -> ServiceSync
//!   EndpointSlice --judge-> EndpointSlice  --+
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `object`    | Services and EndpointSlices as the API server sends them, as far as they are read |
//! | `virtuals`  | judges a Service: its virtual addresses and ports |
//! | `slice`     | judges an EndpointSlice: endpoints, and how ready each is |
//! | `backends`  | which endpoints this node uses, for what |
//! | `translate` | one Service to the services of the daemon |
//! | `owners`    | whose an address is that several Services, or a Service and a Node, have |
//! | `index`     | all of them, and what a change comes to |
//! | `held`      | the difference to what the daemon has, in messages |
//! | `problem`   | what is left out, and why |
//!
//! All of it is pure. What decides follows kube-proxy, as far as pods are the clients: they are inside the
//! cluster, so that `externalTrafficPolicy` and node ports are not theirs.

pub mod backends;
pub mod held;
pub mod index;
pub mod object;
pub mod owners;
pub mod problem;
pub mod slice;
pub mod translate;
pub mod virtuals;

#[cfg(test)]
mod tests;
