//! The limits of a pod's traffic that a runtime or a network's configuration asks for.
//!
//! Enters: the capability `bandwidth`, and the keys of the reference plugin of that name. Leaves: what
//! the daemon is asked to keep. As there, the configuration's own keys win over the runtime's.

use api::{Bandwidth, RateLimit};
use serde_json::{Map, Value};

use crate::args::is_given;
use crate::error::Error;

/// The keys of the reference plugin, which it takes in the capability and beside `type` alike.
const KEYS: [&str; 6] = [
    "ingressRate",
    "ingressBurst",
    "egressRate",
    "egressBurst",
    "shapedSubnets",
    "unshapedSubnets",
];

/// The configuration's own keys; `None` if it has none.
pub(crate) fn keys_of(conf: &Value) -> Option<Value> {
    let given = |key: &&str| Some(((*key).to_owned(), conf.get(*key)?.clone()));
    let keys: Map<_, _> = KEYS.iter().filter_map(given).collect();
    (!keys.is_empty()).then_some(Value::Object(keys))
}

/// The limits of the configuration's own keys, else those of the capability.
///
/// # Errors
/// `Invalid` for what is no rate, `Unsupported` for a limit of some destinations alone.
pub(crate) fn wanted(own: Option<&Value>, capability: Option<&Value>) -> Result<Bandwidth, Error> {
    match (own, capability) {
        (Some(own), _) => parse("", own),
        (None, Some(capability)) => parse("runtimeConfig.bandwidth.", capability),
        (None, None) => Ok(Bandwidth::default()),
    }
}

fn parse(prefix: &str, value: &Value) -> Result<Bandwidth, Error> {
    if value.is_null() {
        return Ok(Bandwidth::default());
    }
    if !value.is_object() {
        let key = prefix.trim_end_matches('.');
        return Err(Error::Invalid(format!("`{key}` is {value}; expected an object")));
    }
    for key in ["shapedSubnets", "unshapedSubnets"] {
        if let Some(subnets) = value.get(key).filter(|subnets| is_given(subnets)) {
            return Err(Error::Unsupported {
                key: format!("{prefix}{key}"),
                value: subnets.to_string(),
            });
        }
    }
    let bits = |key: &str| match value.get(key) {
        None | Some(Value::Null) => Ok(0),
        Some(bits) => bits.as_u64().ok_or_else(|| {
            Error::Invalid(format!("`{prefix}{key}` is {bits}; expected a whole number of bits"))
        }),
    };
    // Zero is what runtimes send for none.
    let limit = |rate: &str, burst: &str| match (bits(rate)?, bits(burst)?) {
        (0, 0) => Ok(None),
        (0, burst_bits) => Err(Error::Invalid(format!(
            "`{prefix}{burst}` is {burst_bits}, and `{prefix}{rate}` is missing: a burst needs a rate"
        ))),
        (bits_per_second, burst_bits) => Ok(Some(RateLimit {
            bits_per_second,
            burst_bits: (burst_bits > 0).then_some(burst_bits),
        })),
    };
    let bandwidth = Bandwidth {
        ingress: limit("ingressRate", "ingressBurst")?,
        egress: limit("egressRate", "egressBurst")?,
    };
    match bandwidth.problem() {
        None => Ok(bandwidth),
        Some(problem) => Err(Error::Invalid(problem)),
    }
}

#[cfg(test)]
mod tests {
    use api::{Bandwidth, RateLimit};
    use serde_json::{Value, json};

    use super::{keys_of, wanted};

    fn limit(bits_per_second: u64, burst_bits: Option<u64>) -> Option<RateLimit> {
        Some(RateLimit { bits_per_second, burst_bits })
    }

    fn of_runtime(capability: Value) -> Result<Bandwidth, String> {
        wanted(None, Some(&capability)).map_err(|error| format!("{} {error}", error.code()))
    }

    #[test]
    fn what_kubelet_sends_is_taken() {
        let burst = (1 << 31) - 1;
        let kubelet = json!({
            "ingressRate": 20_000_000, "ingressBurst": burst,
            "egressRate": 1_000_000, "egressBurst": burst,
        });
        let both = Bandwidth {
            ingress: limit(20_000_000, Some(burst)),
            egress: limit(1_000_000, Some(burst)),
        };
        assert_eq!(of_runtime(kubelet), Ok(both));
        // A pod with one annotation: the other direction's are zero, or left out.
        let one = Bandwidth { egress: None, ..both };
        let zeros = json!({"ingressRate": 20_000_000, "ingressBurst": burst, "egressRate": 0, "egressBurst": 0});
        assert_eq!(of_runtime(zeros), Ok(one));
        assert_eq!(of_runtime(json!({"ingressRate": 20_000_000, "ingressBurst": burst})), Ok(one));
        for none in [json!({}), json!(null), json!({"ingressRate": 0, "shapedSubnets": []})] {
            assert_eq!(of_runtime(none), Ok(Bandwidth::default()));
        }
    }

    #[test]
    fn a_networks_own_keys_win_and_others_are_none() {
        let runtime = json!({"egressRate": 5_000_000});
        let own = keys_of(&json!({"type": "vswitch-cni", "ingressRate": 1_000_000}));
        let ingress = Bandwidth { ingress: limit(1_000_000, None), egress: None };
        assert_eq!(wanted(own.as_ref(), Some(&runtime)).ok(), Some(ingress));
        let own = keys_of(&json!({"type": "vswitch-cni"}));
        let egress = Bandwidth { ingress: None, egress: limit(5_000_000, None) };
        assert_eq!(wanted(own.as_ref(), Some(&runtime)).ok(), Some(egress));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let table = [
            (
                json!({"ingressRate": 999}),
                "7 the ingress rate is 999 bit/s; expected 1k (1,000) to 1P",
            ),
            (
                json!({"egressRate": 2_000_000_000_000_000_u64}),
                "7 the egress rate is 2000000000000000",
            ),
            (
                json!({"egressRate": "1M"}),
                "7 `runtimeConfig.bandwidth.egressRate` is \"1M\"; expected",
            ),
            (json!({"egressRate": -1}), "7 `runtimeConfig.bandwidth.egressRate` is -1; expected"),
            (json!({"egressBurst": 5}), "7 `runtimeConfig.bandwidth.egressBurst` is 5, and"),
            (json!([1]), "7 `runtimeConfig.bandwidth` is [1]; expected an object"),
            (
                json!({"unshapedSubnets": ["198.18.0.0/16"]}),
                "2 runtimeConfig.bandwidth.unshapedSubnets",
            ),
        ];
        for (capability, message) in table {
            let refused = of_runtime(capability).expect_err("refused");
            assert!(refused.starts_with(message), "{refused}");
        }
    }
}
