//! Files and standard input: decompressed, told apart by content, cut into lines, merged by time.
