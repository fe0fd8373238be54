//! Texts that diffusers' pipelines put around prompts. They are as much a part of a model as its weights: with
//! another text it draws another picture.

/// Stands before a prompt of Lumina 2, but not before a negative one (`Lumina2Pipeline`).
pub const LUMINA2_SYSTEM: &str = "You are an assistant designed to generate superior images with the superior degree of image-text \
     alignment based on textual prompts or user prompts. <Prompt Start> ";

/// Stands before a prompt of Sana, but not before a negative one: the "complex human instruction" of `SanaPipeline`.
///
/// # Reference
/// Xie et al., "SANA", 2024, section 2.3, <https://arxiv.org/abs/2410.10629>.
pub const SANA_INSTRUCTION: &str = "Given a user prompt, generate an 'Enhanced prompt' that provides detailed visual descriptions \
     suitable for image generation. Evaluate the level of detail in the user prompt:\n- If the prompt \
     is simple, focus on adding specifics about colors, shapes, sizes, textures, and spatial \
     relationships to create vivid and concrete scenes.\n- If the prompt is already detailed, refine \
     and enhance the existing details slightly without overcomplicating.\nHere are examples of how to \
     transform or refine prompts:\n- User Prompt: A cat sleeping -> Enhanced: A small, fluffy \
     white cat curled up in a round shape, sleeping peacefully on a warm sunny windowsill, surrounded \
     by pots of blooming red flowers.\n- User Prompt: A busy city street -> Enhanced: A bustling \
     city street scene at dusk, featuring glowing street lamps, a diverse crowd of people in colorful \
     clothing, and a double-decker bus passing by towering glass skyscrapers.\nPlease generate \
     only the enhanced description for the prompt below and avoid including any additional commentary \
     or evaluations:\nUser Prompt: ";

/// What the system says in Flux.2's chats (`Flux2Pipeline`).
pub const FLUX2_SYSTEM: &str = "You are an AI that reasons about image descriptions. You give structured responses focusing on \
     object relationships, object\nattribution and actions without speculation.";

/// What stands before and behind a prompt of Qwen-Image (`QwenImagePipeline`).
pub const QWEN_IMAGE: [&str; 2] = [
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, \
     text, spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n",
    "<|im_end|>\n<|im_start|>assistant\n",
];

/// Tokens before the prompt in [`QWEN_IMAGE`], whose states the network does not read.
pub const QWEN_IMAGE_DROPPED: usize = 34;
