//! Bounded loads: consistent choices that turn aside from endpoints which carry much more than their share.
//!
//! The order in which others are looked at is a shuffle seeded by the request's hash, the same as in Envoy
//! (`BoundedLoadHashingLoadBalancer`), so that a key overflows to the same endpoint through either proxy.

/// Limits of the endpoints of one consistent table.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Percent of the average load that is allowed.
    factor: u32,
    /// Endpoints with their shares, which add up to one.
    shares: Vec<(usize, f64)>,
}

impl Bounds {
    pub(super) fn new(factor: u32, shares: Vec<(usize, f64)>) -> Self {
        Self { factor, shares }
    }

    /// The endpoint that takes the request in place of `chosen`: itself unless it has too much to do, else the first of
    /// the others that has not, else the one with the least.
    pub(super) fn within(&self, chosen: usize, hash: u64, load: &dyn Fn(usize) -> u32) -> usize {
        let active: u64 = self
            .shares
            .iter()
            .map(|(host, _)| u64::from(load(*host)))
            .sum();
        let slots = ((active + 1) * u64::from(self.factor)).div_ceil(100) as f64;
        let overload =
            |(host, share): &(usize, f64)| f64::from(load(*host)) / (slots * share).ceil().max(1.0);
        let Some(own) = self.shares.iter().find(|(host, _)| *host == chosen) else {
            return chosen;
        };
        let mut least = (chosen, overload(own));
        if least.1 <= 1.0 {
            return chosen;
        }
        // The seed is what a generator of 32 bits keeps of the hash.
        let mut random = MersenneTwister::new(hash as u32);
        let mut order: Vec<usize> = (0..self.shares.len()).collect();
        for position in 0..order.len() {
            let rest = u32::try_from(order.len() - position).unwrap_or(u32::MAX);
            order.swap(position, position + random.below(rest) as usize);
            let other = &self.shares[order[position]];
            if other.0 == chosen {
                continue;
            }
            let factor = overload(other);
            if factor <= 1.0 {
                return other.0;
            }
            if factor < least.1 {
                least = (other.0, factor);
            }
        }
        least.0
    }
}

const WORDS: usize = 624;
const SHIFT: usize = 397;

/// The generator MT19937 of Matsumoto and Nishimura, 32 bits.
struct MersenneTwister {
    words: Box<[u32; WORDS]>,
    next: usize,
}

impl MersenneTwister {
    fn new(seed: u32) -> Self {
        let mut words = Box::new([0u32; WORDS]);
        words[0] = seed;
        for index in 1..WORDS {
            let before = words[index - 1];
            words[index] = (before ^ (before >> 30))
                .wrapping_mul(1_812_433_253)
                .wrapping_add(index as u32);
        }
        Self { words, next: WORDS }
    }

    fn draw(&mut self) -> u32 {
        if self.next == WORDS {
            for index in 0..WORDS {
                let joined = (self.words[index] & 0x8000_0000)
                    | (self.words[(index + 1) % WORDS] & 0x7fff_ffff);
                let twist = if joined & 1 == 0 { 0 } else { 0x9908_b0df };
                self.words[index] = self.words[(index + SHIFT) % WORDS] ^ (joined >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut word = self.words[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// A number below `limit`, each as likely as the others.
    fn below(&mut self, limit: u32) -> u32 {
        let step = (1u64 << 32) / u64::from(limit.max(1));
        loop {
            let number = u64::from(self.draw()) / step;
            if number < u64::from(limit.max(1)) {
                return number as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, MersenneTwister};

    #[test]
    fn the_generator_is_the_published_one() {
        let mut random = MersenneTwister::new(5489);
        let mut last = 0;
        for _ in 0..10_000 {
            last = random.draw();
        }
        // The value that the C++ standard asks of `std::mt19937` ([rand.predef]).
        assert_eq!(last, 4_123_659_995);
    }

    #[test]
    fn overloaded_endpoints_are_passed_over() {
        let shares: Vec<(usize, f64)> = (0..4).map(|host| (host, 0.25)).collect();
        let bounds = Bounds::new(120, shares);
        assert_eq!(bounds.within(2, 7, &|_| 0), 2);
        let busy = |host| if host == 2 { 50 } else { 1 };
        assert_ne!(bounds.within(2, 7, &busy), 2);
        // The same key turns to the same endpoint.
        assert_eq!(bounds.within(2, 7, &busy), bounds.within(2, 7, &busy));
    }
}
