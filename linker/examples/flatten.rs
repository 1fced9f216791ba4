//! `flatten ELF IMAGE`: writes an ELF file's flat image.

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, elf, image] = arguments.as_slice() else {
        eprintln!("usage: flatten ELF IMAGE");
        std::process::exit(2);
    };
    let result = std::fs::read(elf)
        .map_err(|error| error.to_string())
        .and_then(|bytes| linker::flat_image(&bytes).map_err(|error| error.to_string()))
        .and_then(|bytes| std::fs::write(image, bytes).map_err(|error| error.to_string()));
    if let Err(error) = result {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
