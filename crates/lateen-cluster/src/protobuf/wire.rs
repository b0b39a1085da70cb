//! The wire format: numbered fields.

/// What is wrong with a message.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The message ends inside a field.
    #[error("ends inside a field")]
    Truncated,
    /// A number has more than 64 bits.
    #[error("has a number of more than 64 bits")]
    Varint,
    /// A wire type that Kubernetes does not use.
    #[error("has a field of wire type {0}")]
    WireType(u64),
    /// A field of another type than its definition says.
    #[error("has a field of another type than its definition says")]
    Mismatch,
    /// A text that is not UTF-8.
    #[error("has a text that is not UTF-8")]
    Utf8,
    /// JSON inside the message that cannot be parsed.
    #[error("has a value that is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Messages nested too deep.
    #[error("is nested too deep")]
    TooDeep,
}

/// The content of one field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content<'a> {
    Number(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl<'a> Content<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Fault> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Fault::Mismatch),
        }
    }

    pub(super) fn text(self) -> Result<String, Fault> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| Fault::Utf8)
    }

    /// A signed number in two's complement, as protobuf's `int32` and `int64` are.
    pub(super) fn integer(self) -> Result<i64, Fault> {
        match self {
            Self::Number(number) => Ok(number.cast_signed()),
            _ => Err(Fault::Mismatch),
        }
    }

    pub(super) fn float(self) -> Result<f64, Fault> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            Self::Fixed32(bits) => Ok(f64::from(f32::from_bits(bits))),
            _ => Err(Fault::Mismatch),
        }
    }
}

/// The fields of a message, in order.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field: its number and content.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Content<'a>)>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let content = match key & 7 {
            0 => Content::Number(self.varint()?),
            1 => Content::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Fault::Truncated)?;
                Content::Bytes(self.take(length)?)
            }
            5 => Content::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(Fault::WireType(other)),
        };
        let number = u32::try_from(key >> 3).map_err(|_| Fault::Varint)?;
        Ok(Some((number, content)))
    }

    /// The numbers of a packed list.
    pub(super) fn packed(message: &'a [u8]) -> Result<Vec<i64>, Fault> {
        let mut fields = Self::new(message);
        let mut numbers = Vec::new();
        while !fields.rest.is_empty() {
            numbers.push(fields.varint()?.cast_signed());
        }
        Ok(numbers)
    }

    fn varint(&mut self) -> Result<u64, Fault> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Fault::Varint)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.take(N)?.try_into().map_err(|_| Fault::Truncated)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}
