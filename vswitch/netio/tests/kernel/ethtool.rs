//! ethtool's ioctls against the kernel, in a namespace of the test's own. Needs root.

use crate::common::{Namespace, ip};
use netio::Error;
use netio::ethtool::{driver, rx_queues};

#[test]
fn the_driver_tells_its_name_and_queues() {
    let Some(namespace) = Namespace::new("the_driver_tells_its_name_and_queues") else { return };
    namespace.run(|| {
        ip("link add v0 numrxqueues 2 numtxqueues 2 type veth peer name v1");
        ip("link set v0 up");
        ip("link set v1 up");
        assert_eq!(driver("v0").expect("veth tells").name, "veth");
        assert_eq!(rx_queues("v0").expect("veth tells"), Some(2));
        assert_eq!(rx_queues("lo").expect("an interface"), None);
        assert!(matches!(driver("absent"), Err(Error::NoInterface { .. })));
    });
}
