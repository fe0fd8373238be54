//! All hashes within a Hamming distance, without comparing all pairs.

/// Hashes of 64 bits that can be searched by Hamming distance.
///
/// The 64 bits are cut into `m` bands. If two hashes differ in at most `d` bits, they differ in at most `d / m` bits of some band: so it is
/// enough to look, band by band, where the band's value is that close. Of several `m` the one with the fewest expected look-ups is taken,
/// supposing that hashes are spread evenly; the answer is exact for any hashes.
///
/// Memory: 8 bytes a hash, and for each band 4 bytes a hash and 4 bytes for each of its `2^w` values, which are at most 8 times as many as
/// hashes. A million hashes and `d = 4` get 3 bands of 22, 21 and 21 bits: 54 MB, and 17 MB more while it is built.
///
/// # Example
/// ```
/// use canvas_data::curate::HashIndex;
/// let index = HashIndex::new(vec![0b0000, 0b0111, u64::MAX], 2);
/// let mut found = Vec::new();
/// index.within(0b0001, &mut |position, distance| found.push((position, distance)));
/// found.sort();
/// assert_eq!(found, [(0, 1), (1, 2)]);
/// ```
///
/// # Reference
/// Norouzi, Punjani, Fleet, "Fast Exact Search in Hamming Space with Multi-Index Hashing", 2013, <https://arxiv.org/abs/1307.2982>.
#[derive(Clone, Debug)]
pub struct HashIndex {
    hashes: Vec<u64>,
    bands: Vec<Band>,
    distance: u32,
    /// How many bits may differ in the closest band.
    radius: u32,
}

/// Positions of hashes, sorted by the value of some of their bits.
#[derive(Clone, Debug)]
struct Band {
    shift: u32,
    width: u32,
    /// Where each value begins in `order`, and one more for the end.
    starts: Vec<u32>,
    order: Vec<u32>,
}

impl HashIndex {
    /// An index for searches up to `distance`.
    ///
    /// # Panics
    /// If there are 2^32 hashes or more.
    pub fn new(hashes: Vec<u64>, distance: u32) -> Self {
        assert!(
            u32::try_from(hashes.len()).is_ok(),
            "hashes ({}) must be fewer than 2^32 to be indexed",
            hashes.len()
        );
        let count = fewest_lookups(hashes.len(), distance);
        let mut bands = Vec::with_capacity(count as usize);
        let mut shift = 0_u32;
        for left in (1..=count).rev() {
            let width = (64 - shift).div_ceil(left);
            bands.push(Band::new(&hashes, shift, width));
            shift += width;
        }
        Self { hashes, bands, distance, radius: distance / count }
    }

    /// Visits every hash within the distance of this one, with its position and its distance: each once, in no order.
    pub fn within(&self, hash: u64, visit: &mut dyn FnMut(usize, u32)) {
        for (number, band) in self.bands.iter().enumerate() {
            each_near(band.value(hash), band.width, self.radius, &mut |value| {
                for &position in band.at(value) {
                    let other = self.hashes[position as usize];
                    let distance = (hash ^ other).count_ones();
                    let seen =
                        |band: &Band| (band.value(hash) ^ band.value(other)).count_ones() <= self.radius;
                    if distance <= self.distance && !self.bands[..number].iter().any(seen) {
                        visit(position as usize, distance);
                    }
                }
            });
        }
    }
}

impl Band {
    fn new(hashes: &[u64], shift: u32, width: u32) -> Self {
        let mut band = Self { shift, width, starts: vec![0; (1 << width) + 1], order: vec![0; hashes.len()] };
        for &hash in hashes {
            let value = band.value(hash) as usize;
            band.starts[value + 1] += 1;
        }
        for value in 0..1 << width {
            band.starts[value + 1] += band.starts[value];
        }
        let mut next = band.starts.clone();
        for (position, &hash) in hashes.iter().enumerate() {
            let place = &mut next[band.value(hash) as usize];
            band.order[*place as usize] = position as u32;
            *place += 1;
        }
        band
    }

    fn value(&self, hash: u64) -> u64 {
        (hash >> self.shift) & ((1 << self.width) - 1)
    }

    fn at(&self, value: u64) -> &[u32] {
        let value = value as usize;
        &self.order[self.starts[value] as usize..self.starts[value + 1] as usize]
    }
}

/// Visits every value of `width` bits that differs from this one in at most `radius` of them.
fn each_near(value: u64, width: u32, radius: u32, visit: &mut dyn FnMut(u64)) {
    visit(value);
    if radius > 0 {
        for bit in 0..width {
            // Flips lower bits only from here on, so that each set of flipped bits comes once.
            each_near(value ^ (1 << bit), bit, radius - 1, visit);
        }
    }
}

/// The number of bands with the fewest expected look-ups, and tables not much longer than the list of hashes.
fn fewest_lookups(hashes: usize, distance: u32) -> u32 {
    let widest = (hashes.max(64).ilog2() + 3).min(31);
    let cost = |bands: u32| {
        let width = 64_u32.div_ceil(bands);
        let (mut values, mut choose) = (0.0, 1.0);
        for flips in 0..=(distance / bands).min(width) {
            values += choose;
            choose *= f64::from(width - flips) / f64::from(flips + 1);
        }
        f64::from(bands) * values * (1.0 + hashes as f64 / f64::from(width).exp2())
    };
    (1..=32)
        .filter(|bands| 64_u32.div_ceil(*bands) <= widest)
        .min_by(|&a, &b| cost(a).total_cmp(&cost(b)))
        .expect("32 bands of 2 bits are narrow enough")
}
