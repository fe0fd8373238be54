//! Windows of images, with zeros around.

/// Copies `from` to `to`, of the same length; for the few values of a window faster than a call of the C library.
#[inline(always)]
pub fn copy(from: &[f32], to: &mut [f32]) {
    let ((from, from_tail), (to, to_tail)) = (from.as_chunks::<8>(), to.as_chunks_mut::<8>());
    for (from, to) in from.iter().zip(to) {
        *to = *from;
    }
    let ((from, from_tail), (to, to_tail)) = (from_tail.as_chunks::<2>(), to_tail.as_chunks_mut::<2>());
    for (from, to) in from.iter().zip(to) {
        *to = *from;
    }
    if let ([from], [to]) = (from_tail, to_tail) {
        *to = *from;
    }
}

/// Sets the few values of `out` to zero, again without a call.
#[inline(always)]
fn zero(out: &mut [f32]) {
    let (chunks, tail) = out.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = [0.0; 8];
    }
    let (pairs, tail) = tail.as_chunks_mut::<2>();
    for pair in pairs {
        *pair = [0.0; 2];
    }
    if let [value] = tail {
        *value = 0.0;
    }
}

/// Copies to `out` every `step`-th value of `plane` `[size]` from `row` and `column` on, with zeros outside.
#[inline(always)]
pub fn window(plane: &[f32], size: [usize; 2], row: isize, column: isize, step: usize, out: &mut [f32]) {
    if row < 0 || row >= size[0] as isize {
        zero(out);
        return;
    }
    let line = &plane[row as usize * size[1]..][..size[1]];
    let lanes = |columns: isize| {
        let columns = columns.max(0) as usize;
        (if step == 1 { columns } else { columns.div_ceil(step) }).min(out.len())
    };
    let (low, high) = (lanes(-column), lanes(size[1] as isize - column));
    zero(&mut out[..low]);
    zero(&mut out[high..]);
    if low < high {
        let line = &line[(column + (low * step) as isize) as usize..];
        if step == 1 {
            copy(&line[..high - low], &mut out[low..high]);
        } else {
            out[low..high].iter_mut().zip(line.iter().step_by(step)).for_each(|(out, value)| *out = *value);
        }
    }
}
