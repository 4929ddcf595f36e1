//! Randomness that is the same in every run: which organization, which credential, and the
//! credentials themselves.

/// How many credentials there are.
pub const CREDENTIALS: u64 = 1000;

/// Marsaglia's xorshift64*: a few instructions a number, and even enough to choose rows with.
pub struct Xorshift(u64);

impl Xorshift {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds are spread over all bits, and none is 0, which would stay 0.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below another one.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}

/// The bearer tokens of the credentials that every database is seeded with.
pub fn tokens() -> Vec<String> {
    let mut random = Xorshift::new(CREDENTIALS);
    let token = |_| {
        let bits = u128::from(random.next()) << 64 | u128::from(random.next());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string()
    };
    (0..CREDENTIALS).map(token).collect()
}
