use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::wire::stream::{Base64Carry, NotBase64, Payload};

/// Decodes messages that come in pieces of `chunk` characters.
fn decoded(messages: &[&str], chunk: usize) -> Result<Vec<u8>, NotBase64> {
    let (mut carry, mut plain) = (Base64Carry::new(), Vec::new());
    for message in messages {
        for (index, wire) in message.as_bytes().chunks(chunk).enumerate() {
            let piece = Payload { wire, start: 0, mask: None, opens: index == 0 };
            carry.push(&piece, &mut plain)?;
        }
    }
    Ok(plain)
}

#[test]
fn pieces_may_cut_quads() {
    let bytes: Vec<u8> = (0..=255).collect();
    for length in 0..40 {
        let text = STANDARD.encode(&bytes[200..200 + length]);
        for chunk in 1..60 {
            let twice = decoded(&[&text, &text], chunk).expect("base64");
            assert_eq!(twice, [&bytes[200..200 + length]; 2].concat(), "{length} by {chunk}");
        }
    }
}

#[test]
fn line_ends_are_passed_over_and_messages_stand_alone() {
    for chunk in 1..10 {
        assert_eq!(decoded(&["aG\r\nVs\nbG8="], chunk), Ok(b"hello".to_vec()));
        assert_eq!(decoded(&["aGk=aGk", "aG8="], chunk), Ok(b"hiho".to_vec()), "{chunk}");
        assert_eq!(decoded(&["a!k="], chunk), Err(NotBase64));
        // Padding ends a message, and its bits are not looked at.
        assert_eq!(decoded(&["aGk=aGk="], chunk), Err(NotBase64));
        assert_eq!(decoded(&["aGl="], chunk), Ok(b"hi".to_vec()));
    }
}

/// Found by the fuzz target `channels`: what came before the fault depended on where pieces were cut.
#[test]
fn a_fault_is_the_same_in_every_chunking() {
    for text in ["aGVsbG8gd29y~GQgYW5kIG1vcmU=", "aGk=bW9yZSBvZiBpdA==", "!aGk=aaaa"] {
        let outcome = |chunk| {
            let (mut carry, mut plain, mut faults) = (Base64Carry::new(), Vec::new(), 0);
            for (index, wire) in text.as_bytes().chunks(chunk).enumerate() {
                let piece = Payload { wire, start: 0, mask: None, opens: index == 0 };
                faults += usize::from(carry.push(&piece, &mut plain).is_err());
            }
            assert!(faults > 0, "{text}");
            plain
        };
        for chunk in 1..text.len() {
            assert_eq!(outcome(chunk), outcome(text.len()), "{text} by {chunk}");
        }
    }
}
