//! The built plugin, executed as a container runtime executes it.
//!
//! | file | holds |
//! |---|---|
//! | `contract` | the contract with a runtime, item by item, in every version |
//! | `attach`   | what else it does to a pod's namespace and undoes again, as root |
//! | `several`  | what it does beside other interfaces of the pod, and beside other ADDs |
//! | `asked`    | what configurations, runtimes and IPAM plugins ask for |
//! | `away`     | what it does while the daemon, or something else, is away or hangs |
//! | `adjust` `watch` | MTUs of live pods |
//! | `lab`      | what these share: namespaces, a daemon that is played, the runtime's role |

mod adjust;
mod asked;
mod attach;
mod away;
mod contract;
mod lab;
mod several;
mod watch;
