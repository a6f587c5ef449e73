# The rooms of broker/, in build order, and the arrows between them. A room may use what its line lists, plus base and
# model (base itself uses nothing of ours). The build refuses any other arrow: a new one comes with its reason in the
# commit that adds it.
set(TAILRACE_ROOMS base model codec io shard io_uring io_threads io_asio log raft group queue stream stream_rocksdb flow cluster service
    native kafka http server)

set(TAILRACE_USES_base "")
set(TAILRACE_USES_model base)
set(TAILRACE_USES_io base)
set(TAILRACE_USES_codec base model)
set(TAILRACE_USES_io_uring base model io)
set(TAILRACE_USES_io_threads base model io)
set(TAILRACE_USES_io_asio base model io shard)  # its loop runs the shard's timers, ready work and inbox
set(TAILRACE_USES_shard base model io)
set(TAILRACE_USES_log base model io codec)      # codec: batch headers are read back during recovery and reads
foreach(pure raft group queue stream flow cluster)
  set(TAILRACE_USES_${pure} base model)
endforeach()
set(TAILRACE_USES_stream_rocksdb base model io stream)  # the index of streams behind stream's interface; io: calls that block
set(TAILRACE_USES_service base model log raft group queue stream flow cluster codec shard io)
# codec: batches are validated at the edge; flow: memory is taken before a frame is read; cluster: the catalog that a service answers with
set(TAILRACE_USES_http base model service)
foreach(front native kafka)
  set(TAILRACE_USES_${front} base model service io proto codec shard flow cluster)
endforeach()
set(TAILRACE_USES_server ${TAILRACE_ROOMS} proto server_config server_io)
set(TAILRACE_USES_server_config base model)     # the part of server that the command line and the fuzzers link alone
set(TAILRACE_USES_server_io base model io io_uring io_threads io_asio shard server_config)  # shard threads: server, and benches
set(TAILRACE_USES_client base model codec proto)
set(TAILRACE_USES_client_testing base model codec proto client)
set(TAILRACE_USES_bench_load base model codec client)
set(TAILRACE_USES_cli_base base model client)  # the part of cli that needs neither broker nor network
set(TAILRACE_USES_cli cli_base base model codec proto client server server_io server_config cluster log io io_threads io_uring shard bench_load)  # cluster: the table of topic keys, for config explain

# For tests/tidy, which holds the includes to the same table: cmake -DTAILRACE_PRINT_ROOMS=1 -P cmake/rooms.cmake
if(TAILRACE_PRINT_ROOMS)
  foreach(room IN LISTS TAILRACE_ROOMS ITEMS client client_testing cli)
    message("${room} ${TAILRACE_USES_${room}}")
  endforeach()
  return()
endif()

# tailrace_library(NAME log SOURCES a.cc HEADERS a.h DEPS tailrace::model tailrace::io [LIBS PkgConfig::x] [PRIVATE_LIBS y])
# DEPS are rooms of ours and are checked; LIBS are other people's.
function(tailrace_library)
  cmake_parse_arguments(ARG "" "NAME" "SOURCES;HEADERS;DEPS;LIBS;PRIVATE_LIBS" ${ARGN})
  set(target tailrace_${ARG_NAME})
  foreach(dep IN LISTS ARG_DEPS)
    string(REPLACE "tailrace::" "" room ${dep})
    if(NOT room IN_LIST TAILRACE_USES_${ARG_NAME})
      message(FATAL_ERROR "room '${ARG_NAME}' may not use '${room}': see cmake/rooms.cmake")
    endif()
  endforeach()
  if(ARG_SOURCES)
    add_library(${target} STATIC ${ARG_SOURCES} ${ARG_HEADERS})
    target_include_directories(${target} PUBLIC ${CMAKE_SOURCE_DIR}/broker ${CMAKE_SOURCE_DIR})
    target_link_libraries(${target} PUBLIC ${ARG_DEPS} ${ARG_LIBS} PRIVATE ${ARG_PRIVATE_LIBS} tailrace::warnings)
  else()
    add_library(${target} INTERFACE)
    target_include_directories(${target} INTERFACE ${CMAKE_SOURCE_DIR}/broker ${CMAKE_SOURCE_DIR})
    target_link_libraries(${target} INTERFACE ${ARG_DEPS} ${ARG_LIBS})
  endif()
  add_library(tailrace::${ARG_NAME} ALIAS ${target})
endfunction()

# All that the thread sanitizer is asked about: tests labelled tsan.
add_custom_target(tsan_tests)

# tailrace_test(NAME unit_log SOURCES a_test.cc DEPS tailrace::log [LABELS tsan]) : one GoogleTest program, one ctest entry
# per test case. DEPS may be any target: tests may look everywhere.
function(tailrace_test)
  cmake_parse_arguments(ARG "" "NAME;TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${ARG_NAME} ${ARG_SOURCES})
  target_include_directories(${ARG_NAME} PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/broker)
  target_link_libraries(${ARG_NAME} PRIVATE ${ARG_DEPS} tailrace::warnings GTest::gtest GTest::gtest_main rapidcheck)
  set_target_properties(${ARG_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  if("tsan" IN_LIST ARG_LABELS)
    add_dependencies(tsan_tests ${ARG_NAME})
  endif()
  # One label only: gtest_discover_tests of CMake 3.25 splits a list and keeps its first.
  if(NOT ARG_LABELS)
    set(ARG_LABELS ${ARG_NAME})
  endif()
  include(GoogleTest)
  gtest_discover_tests(${ARG_NAME} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
    PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS ${ARG_LABELS})
endfunction()
