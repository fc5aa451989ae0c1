//! Percent-encoding (RFC 3986, section 2.1).

use std::borrow::Cow;

/// Decodes once. Nothing when an escape is incomplete or the bytes are not UTF-8, which also refuses overlong
/// forms. A `+` stays a plus: no value of the registry API holds a space, many hold a plus.
pub(crate) fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => decoded.push(nibble(bytes.next()?)? << 4 | nibble(bytes.next()?)?),
            _ => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn nibble(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

/// Encodes everything but the unreserved characters.
pub(crate) fn encode(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decodes_once_and_refuses_the_rest() {
        assert_eq!(decode("a%2Fb%2fc").as_deref(), Some("a/b/c"));
        assert_eq!(decode("%252e").as_deref(), Some("%2e"));
        assert_eq!(decode("a+b").as_deref(), Some("a+b"));
        for bad in ["%", "%2", "%zz", "%+1", "%c0%ae", "%ff"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_back(text in any::<String>()) {
            let encoded = encode(&text);
            prop_assert!(encoded.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"&=?/".contains(&b)));
            prop_assert_eq!(decode(&encoded), Some(Cow::Borrowed(text.as_str())));
        }

        #[test]
        fn decoding_never_panics(text in any::<String>()) {
            let _ = decode(&text);
        }
    }
}
