//! Fashion-MNIST, and the files of numbers in which it and MNIST come: `idx`, packed by gzip.
//!
//! Xiao et al., "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms", 2017,
//! <https://arxiv.org/abs/1708.07747>; MIT licence. The format: LeCun et al., "The MNIST database of handwritten digits".

use anyhow::{Context, Result, anyhow, bail, ensure};
use burn::prelude::*;
use flate2::read::GzDecoder;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

/// Pixels of a picture's side.
pub const SIDE: usize = 28;

/// What a picture shows, by its label.
pub const NAMES: [&str; 10] = [
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
];

/// Bytes with a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// Sizes of the axes.
    pub dims: Vec<usize>,
    /// As many bytes as their product; the last axis is the fastest.
    pub bytes: Vec<u8>,
}

/// Pictures of one size in grey, and what they show.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// 28 by 28 bytes each, 0 is black.
    pub pictures: Vec<u8>,
    /// From 0 to 9.
    pub labels: Vec<usize>,
}

/// Both parts of the data set.
#[derive(Clone, Debug)]
pub struct Fashion {
    /// 60,000 pictures.
    pub train: Labelled,
    /// 10,000 others.
    pub test: Labelled,
}

impl Fashion {
    /// Reads the four files of a folder, as Debian's package and the data set's own page name them.
    ///
    /// # Errors
    /// If a file is missing (says how to get it), broken, or does not fit the others: names it.
    pub fn read(folder: &Path) -> Result<Self> {
        let train = Labelled::read(folder, "train")?;
        Ok(Self { train, test: Labelled::read(folder, "t10k")? })
    }
}

impl Labelled {
    fn read(folder: &Path, part: &str) -> Result<Self> {
        let path = |kind: &str| folder.join(format!("{part}-{kind}-ubyte.gz"));
        let (of_pictures, of_labels) = (path("images-idx3"), path("labels-idx1"));
        let (pictures, labels) = (read(&of_pictures)?, read(&of_labels)?);
        let [count, height, width] = pictures.dims[..] else {
            bail!("{}: expected 3 axes, found {}", of_pictures.display(), pictures.dims.len());
        };
        ensure!(
            [height, width] == [SIDE; 2],
            "{}: expected pictures of {SIDE}x{SIDE}, found {width}x{height}",
            of_pictures.display()
        );
        ensure!(count > 0, "{}: no pictures", of_pictures.display());
        ensure!(
            labels.dims == [count],
            "{}: expected one axis of {count} labels, as many as pictures in {}, found axes of {:?}",
            of_labels.display(),
            of_pictures.display(),
            labels.dims
        );
        if let Some(row) = labels.bytes.iter().position(|&label| usize::from(label) >= NAMES.len()) {
            bail!("{}: label {row}: expected 0 to 9, found {}", of_labels.display(), labels.bytes[row]);
        }
        let labels = labels.bytes.into_iter().map(usize::from).collect();
        Ok(Self { pictures: pictures.bytes, labels })
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.labels.len()
    }

    /// The pictures, as numbers from -1 (black) to 1.
    ///
    /// # Shapes
    /// `[N, 1, 28, 28]`.
    pub fn tensor(&self, device: &Device) -> Tensor<4> {
        let values: Vec<f32> = self.pictures.iter().map(|&byte| f32::from(byte) / 127.5 - 1.0).collect();
        Tensor::from_data(TensorData::new(values, [self.count(), 1, SIDE, SIDE]), device)
    }
}

/// Reads a file of bytes with a shape, packed by gzip.
///
/// The header is two zeros, 8 (for bytes), the number of axes, and four bytes for the size of each, the highest first.
///
/// # Errors
/// If the file is missing, is not such a file, or holds fewer or more bytes than it says: names it.
pub fn read(path: &Path) -> Result<Idx> {
    let file = File::open(path).map_err(|error| missing(path, &error))?;
    let mut unpacked = GzDecoder::new(BufReader::new(file));
    parse(&mut unpacked).with_context(|| path.display().to_string())
}

fn missing(path: &Path, error: &std::io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        ErrorKind::NotFound => {
            "; Debian has Fashion-MNIST: `apt-get install dataset-fashion-mnist`, then \
             `--data /usr/share/datasets/fashion-mnist`"
        }
        _ => "",
    };
    anyhow!("{}: {error}{hint}", path.display())
}

fn parse(from: &mut impl Read) -> Result<Idx> {
    /// Far more than any data set of this kind has; a header may say anything.
    const MOST: usize = 1 << 31;
    let mut magic = [0; 4];
    from.read_exact(&mut magic).context("the header is cut or is not gzip")?;
    let [0, 0, 8, axes @ 1..=4] = magic else {
        bail!("expected a header of 0, 0, 8 and the number of axes, found {magic:?}");
    };
    let mut dims = Vec::new();
    for axis in 0..axes {
        let mut size = [0; 4];
        from.read_exact(&mut size).with_context(|| format!("the size of axis {axis} is cut"))?;
        dims.push(u32::from_be_bytes(size) as usize);
    }
    let count = dims.iter().try_fold(1usize, |count, &size| count.checked_mul(size));
    let count = count.filter(|&count| count <= MOST);
    let count = count.with_context(|| format!("sizes of {dims:?} are more than {MOST} bytes"))?;
    let mut bytes = Vec::new();
    from.take(count as u64 + 1).read_to_end(&mut bytes).context("the packed bytes are cut or broken")?;
    ensure!(
        bytes.len() == count,
        "sizes of {dims:?} are {count} bytes, found {}{}",
        bytes.len().min(count),
        if bytes.len() > count { " and more" } else { "" }
    );
    Ok(Idx { dims, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn file(dims: &[u32], bytes: &[u8]) -> Vec<u8> {
        let mut all = vec![0, 0, 8, dims.len() as u8];
        dims.iter().for_each(|size| all.extend(size.to_be_bytes()));
        all.extend(bytes);
        all
    }

    fn said(folder: &Path, content: &[u8]) -> String {
        let path = folder.join("some.gz");
        std::fs::write(&path, content).unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("some.gz"), "{error}");
        error
    }

    #[test]
    fn bytes_come_back_with_their_shape() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.gz");
        std::fs::write(&path, packed(&file(&[2, 1, 3], &[1, 2, 3, 4, 5, 6]))).unwrap();
        let found = read(&path).unwrap();
        assert_eq!(found, Idx { dims: vec![2, 1, 3], bytes: vec![1, 2, 3, 4, 5, 6] });
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let said = |content: &[u8]| said(folder.path(), content);
        assert!(said(b"not packed at all").contains("header"));
        assert!(said(&packed(&[0, 0, 8])).contains("header is cut"));
        let floats = said(&packed(&[0, 0, 13, 1, 0, 0, 0, 0]));
        assert!(floats.contains("[0, 0, 13, 1]"), "{floats}");
        assert!(said(&packed(&[0, 0, 8, 2, 0, 0, 0, 1])).contains("axis 1"));
        let short = said(&packed(&file(&[2, 3], &[1, 2, 3])));
        assert!(short.contains("6 bytes, found 3"), "{short}");
        let long = said(&packed(&file(&[2], &[1, 2, 3])));
        assert!(long.contains("found 2 and more"), "{long}");
        let vast = said(&packed(&file(&[u32::MAX, u32::MAX, u32::MAX], &[1])));
        assert!(vast.contains("4294967295"), "{vast}");
        let whole = packed(&file(&[1000], &(0..1000).map(|i| (i * i % 251) as u8).collect::<Vec<u8>>()));
        let cut = said(&whole[..whole.len() / 2]);
        assert!(cut.contains("cut or broken"), "{cut}");
        let mut wrong = whole.clone();
        let end = wrong.len() - 8; // gzip's checksum
        wrong[end] ^= 1;
        assert!(said(&wrong).contains("cut or broken"));
    }

    #[test]
    fn files_that_do_not_fit_each_other_are_said() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, content: Vec<u8>| {
            std::fs::write(folder.path().join(name), packed(&content)).unwrap();
        };
        let error = || format!("{:#}", Fashion::read(folder.path()).unwrap_err());
        let none = error();
        assert!(none.contains("train-images-idx3-ubyte.gz") && none.contains("apt-get install"), "{none}");

        let pictures = |count: u32| file(&[count, 28, 28], &vec![7; count as usize * 784]);
        put("train-images-idx3-ubyte.gz", pictures(2));
        assert!(error().contains("train-labels-idx1-ubyte.gz"));
        put("train-labels-idx1-ubyte.gz", file(&[3], &[0, 1, 2]));
        assert!(error().contains("2 labels"), "{}", error());
        put("train-labels-idx1-ubyte.gz", file(&[2], &[0, 10]));
        assert!(error().contains("label 1: expected 0 to 9, found 10"), "{}", error());
        put("train-labels-idx1-ubyte.gz", file(&[2], &[0, 9]));
        assert!(error().contains("t10k-images-idx3-ubyte.gz"));
        put("t10k-images-idx3-ubyte.gz", file(&[1, 27, 28], &[0; 27 * 28]));
        put("t10k-labels-idx1-ubyte.gz", file(&[1], &[4]));
        assert!(error().contains("28x27"), "{}", error());
        put("t10k-images-idx3-ubyte.gz", file(&[1, 784], &[0; 784]));
        assert!(error().contains("3 axes, found 2"), "{}", error());
        put("t10k-images-idx3-ubyte.gz", pictures(1));
        let read = Fashion::read(folder.path()).unwrap();
        assert_eq!((read.train.count(), read.test.labels), (2, vec![4]));
        assert_eq!(read.train.tensor(&Device::flex()).dims(), [2, 1, 28, 28]);
    }
}
