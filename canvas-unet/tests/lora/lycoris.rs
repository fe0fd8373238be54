//! LyCORIS' files: products and Kronecker products of small matrices, and kernels between them.

use crate::files::{File, all, alpha, kohya_key};
use crate::model::{Model, check};
use canvas_testkit::hashed;

/// A file in LyCORIS' way, with an alpha of 3 everywhere.
fn lycoris(model: &Model, shapes: impl Fn(&str, &[usize]) -> Vec<(&'static str, Vec<usize>)>) -> File {
    model.file(all, |name, shape| {
        let key = kohya_key(name);
        // The fixture's keys have dots and no prefix.
        let value = |(role, shape): (&str, Vec<usize>)| {
            (format!("{key}.{role}"), hashed(&format!("{name}.{role}"), &shape, 0.5, 0.0))
        };
        let mut file: File = shapes(name, shape).into_iter().map(value).collect();
        file.extend([alpha(&key, 3.0)]);
        file
    })
}

#[test]
fn loha_equals_peft() {
    let model = Model::sd("loha_model");
    let file = lycoris(&model, |_, shape| {
        let (out, inner, flat) = (shape[0], shape[1], shape[1..].iter().product());
        if shape[2..] == [3, 3] {
            let core = vec![2, 2, 3, 3];
            let sides = [("hada_w1_a", out), ("hada_w1_b", inner), ("hada_w2_a", out), ("hada_w2_b", inner)];
            let sides = sides.into_iter().map(|(role, size)| (role, vec![2, size]));
            return sides.chain([("hada_t1", core.clone()), ("hada_t2", core)]).collect();
        }
        let (tall, wide) = (vec![out, 2], vec![2, flat]);
        let first = [("hada_w1_a", tall.clone()), ("hada_w1_b", wide.clone())];
        first.into_iter().chain([("hada_w2_a", tall), ("hada_w2_b", wide)]).collect()
    });
    check("loha", &model, &file, 1.0);
}

#[test]
fn lokr_equals_peft() {
    let model = Model::sd("lokr_model");
    let file = lycoris(&model, |name, shape| {
        let first = if shape[0].is_multiple_of(2) { 2 } else { 1 };
        let (out, inner, kernel) = (shape[0] / first, shape[1], &shape[2..]);
        let mut shapes = vec![("lokr_w1", vec![first, 1])];
        if name.contains(".ff.") {
            shapes = vec![("lokr_w1_a", vec![first, 2]), ("lokr_w1_b", vec![2, 1])];
        }
        if name.contains("conv1") {
            shapes.push(("lokr_w2", [&[out, inner], kernel].concat()));
        } else if kernel == [3, 3] {
            shapes.extend([("lokr_w2_a", vec![2, out]), ("lokr_w2_b", vec![2, inner])]);
            shapes.push(("lokr_t2", vec![2, 2, 3, 3]));
        } else {
            let flat = shape[1..].iter().product();
            shapes.extend([("lokr_w2_a", vec![out, 2]), ("lokr_w2_b", vec![2, flat])]);
        }
        shapes
    });
    check("lokr", &model, &file, 1.0);
}

#[test]
fn a_kernel_in_the_middle_equals_three_convolutions() {
    let model = Model::sd("middle_model");
    let file = model.file(all, |name, shape| {
        if shape.get(2) != Some(&3) {
            return File::new();
        }
        let key = kohya_key(name);
        let shapes =
            [("down", vec![2, shape[1], 1, 1]), ("mid", vec![2, 2, 3, 3]), ("up", vec![shape[0], 2, 1, 1])];
        let mut file: File = shapes
            .into_iter()
            .map(|(role, shape)| {
                let key = format!("{key}.lora_{role}.weight");
                (key.clone(), hashed(&key, &shape, 0.5, 0.0))
            })
            .collect();
        file.extend([alpha(&key, 3.0)]);
        file
    });
    check("middle", &model, &file, 1.0);
}
