//! A MAC address as people and JSON write it: `02:76:c6:33:64:0b`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Six bytes, in the order of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac(pub [u8; 6]);

/// The text is not six two-digit hexadecimal numbers separated by colons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MAC address such as 02:76:c6:33:64:0b")]
pub struct MacParseError(String);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || MacParseError(text.chars().take(64).collect());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(refuse)?;
            if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() { Err(refuse()) } else { Ok(Self(bytes)) }
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = MacParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::Mac;

    #[test]
    fn text_and_bytes_are_the_same_address() {
        let mac: Mac = "02:76:C6:33:64:0b".parse().expect("a MAC");
        assert_eq!(mac, Mac([0x02, 0x76, 0xc6, 0x33, 0x64, 0x0b]));
        assert_eq!(mac.to_string(), "02:76:c6:33:64:0b");
    }

    #[test]
    fn near_misses_are_refused() {
        for text in
            ["", "02:76:c6:33:64", "02:76:c6:33:64:0b:00", "2:76:c6:33:64:0b", "02:76:c6:33:64:+b"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
