//! A bounds-checked walker over protobuf messages, and the few writers that rewriting needs.
//!
//! Groups (wire types 3 and 4) are refused: no Kubernetes type has them, and they are the only
//! construct that nests without a length.

/// Why a message could not be walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// A varint of more than ten bytes, or one over 64 bits.
    #[error("overlong varint")]
    Varint,
    /// A length or value runs over the end.
    #[error("truncated message")]
    Truncated,
    /// A field number of zero or over 2^29 - 1.
    #[error("bad field number")]
    Field,
    /// A group, or a wire type that does not exist.
    #[error("unsupported wire type")]
    WireType,
}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The field's number.
    pub number: u32,
    /// Its value.
    pub value: Value<'a>,
    /// The whole field as encoded, tag included.
    pub encoded: &'a [u8],
}

/// A field's value by wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64([u8; 8]),
    /// Wire type 2: a string, bytes or a message.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32([u8; 4]),
}

/// The fields of a message, in order. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

/// Walks the message in `bytes`.
#[must_use]
pub fn fields(bytes: &[u8]) -> Fields<'_> {
    Fields { rest: bytes }
}

const FIELD_NUMBER_MAX: u64 = (1 << 29) - 1;

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<Field<'a>, ProtobufError> {
        let start = self.rest;
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number > FIELD_NUMBER_MAX {
            return Err(ProtobufError::Field);
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.array()?),
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| ProtobufError::Truncated)?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(self.array()?),
            _ => return Err(ProtobufError::WireType),
        };
        let encoded = &start[..start.len() - self.rest.len()];
        Ok(Field { number: number as u32, value, encoded })
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0u64;
        for (index, byte) in self.rest.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if index == 9 && bits > 1 {
                return Err(ProtobufError::Varint);
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { ProtobufError::Truncated } else { ProtobufError::Varint })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ProtobufError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| ProtobufError::Truncated)
    }
}

/// Appends a varint.
pub fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length-delimited field.
pub fn write_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    write_varint(u64::from(number) << 3 | 2, out);
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends a varint field.
pub fn write_number(number: u32, value: u64, out: &mut Vec<u8>) {
    write_varint(u64::from(number) << 3, out);
    write_varint(value, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn walks_what_it_writes() {
        let mut bytes = Vec::new();
        write_bytes(1, b"text", &mut bytes);
        write_number(300, u64::MAX, &mut bytes);
        bytes.extend([(7 << 3) | 5, 1, 2, 3, 4]);
        bytes.extend([(8 << 3) | 1, 1, 2, 3, 4, 5, 6, 7, 8]);
        let read: Vec<_> = fields(&bytes).map(|field| field.expect("own bytes")).collect();
        assert_eq!((read[0].number, read[0].value), (1, Value::Bytes(b"text")));
        assert_eq!((read[1].number, read[1].value), (300, Value::Varint(u64::MAX)));
        assert_eq!((read[2].number, read[2].value), (7, Value::Fixed32([1, 2, 3, 4])));
        assert_eq!((read[3].number, read[3].value), (8, Value::Fixed64([1, 2, 3, 4, 5, 6, 7, 8])));
        assert_eq!(read.iter().flat_map(|field| field.encoded).copied().collect::<Vec<_>>(), bytes);
    }

    #[test]
    fn hostile() {
        let error = |bytes: &[u8]| fields(bytes).find_map(Result::err);
        assert_eq!(error(&[0x0a]), Some(ProtobufError::Truncated));
        assert_eq!(error(&[0x0a, 5, b'a']), Some(ProtobufError::Truncated));
        assert_eq!(error(&[0x08, 0x80]), Some(ProtobufError::Truncated));
        assert_eq!(
            error(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            None
        );
        let overlong = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(error(&overlong), Some(ProtobufError::Varint));
        assert_eq!(error(&[0xff; 16]), Some(ProtobufError::Varint));
        assert_eq!(error(&[0x00, 0x00]), Some(ProtobufError::Field));
        assert_eq!(error(&[0x0b]), Some(ProtobufError::WireType));
        assert_eq!(error(&[0x0e]), Some(ProtobufError::WireType));
        let huge = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(error(&huge), Some(ProtobufError::Truncated));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let read: Result<Vec<_>, _> = fields(&bytes).collect();
            if let Ok(read) = read {
                let encoded: Vec<u8> = read.iter().flat_map(|f| f.encoded).copied().collect();
                prop_assert_eq!(encoded, bytes);
            }
        }
    }
}
