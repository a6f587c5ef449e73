#include "command_line.h"

int main(int argc, char** argv) { return tailrace::cli::run(argc, argv); }
