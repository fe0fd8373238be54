//! Every network that is told a class can be told a pooled prompt instead.

use super::*;
use canvas_dit::{DdtConfig, DitConfig, JitConfig, LightningDitConfig, SitConfig};
use canvas_testkit::chirped;

fn reads_text<M: Backbone<4, Cond = Text> + Module>(net: M) {
    let device = Device::flex();
    let (net, x) = (chirped(net), pattern([2, 3, 4, 6], 1.0, &device));
    rows_stand_alone(&net, x.clone(), &text(&device));
    is_told_both(&net, x, &text(&device));
}

#[test]
fn a_pooled_prompt_takes_the_place_of_the_class() {
    let device = Device::flex();
    reads_text(DitConfig::new([4, 6], 16, 1, 2).with_channels(3).init_text(7, &device));
    reads_text(SitConfig::new([4, 6], 16, 1, 2).with_channels(3).init_text(7, &device));
    reads_text(LightningDitConfig::new([4, 6], 16, 1, 2).with_channels(3).init_text(7, &device));
    reads_text(JitConfig::new([4, 6], 16, 1, 2, 0).with_patch(2).init_text(7, &device));
    reads_text(DdtConfig::new([4, 6], 3, [16, 24], [1, 1], [2, 3]).init_text(7, &device));
}
