//! All entries over the files of `fuzz/corpus`, which are there because each once did, or might do, something special.

use std::path::Path;

/// Also bytes that are in no file: nothing, and each length of one value.
#[test]
fn every_entry_takes_every_file_of_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    for (name, entry) in fuzz_entries::ENTRIES {
        entry(&[]);
        for value in [0, 1, 0x7f, 0xff] {
            entry(&[value; 100]);
        }
        let folder = corpus.join(name);
        let files =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut count = 0;
        for file in files {
            let file = file.expect("a readable folder").path();
            println!("{}", file.display());
            entry(&std::fs::read(&file).expect("a readable file"));
            count += 1;
        }
        assert!(count > 0, "{name} has an empty corpus");
    }
}
