// ASIO_SEPARATE_COMPILATION: the one translation unit that holds Asio's code.
#include <asio/impl/src.hpp>
