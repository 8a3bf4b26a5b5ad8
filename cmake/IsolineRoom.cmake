# isoline_room(<name> SOURCES ... [DEPENDS <rooms>] [LINK <libraries>] [TESTS ...])
# One folder = one static library isoline::<name>; tests beside the code become one program <name>_test.
# .cu sources are compiled as objects of their own, so that whoever links the library needs no CUDA language.
function(isoline_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;DEPENDS;LINK;PRIVATE_LINK;TESTS;TEST_DEPENDS" ${ARGN})
  set(cuda_sources ${ROOM_SOURCES})
  list(FILTER cuda_sources INCLUDE REGEX "\\.cu$")
  list(FILTER ROOM_SOURCES EXCLUDE REGEX "\\.cu$")
  if(cuda_sources)
    add_library(isoline_${name}_cu OBJECT ${cuda_sources})
    set_target_properties(isoline_${name}_cu PROPERTIES POSITION_INDEPENDENT_CODE ON)
    target_compile_options(isoline_${name}_cu PRIVATE -std=c++20)  # CMake 3.25 does not know how nvcc calls it
    target_include_directories(isoline_${name}_cu PRIVATE ${PROJECT_SOURCE_DIR}/src)
    isoline_compile_options(isoline_${name}_cu)
    list(APPEND ROOM_SOURCES $<TARGET_OBJECTS:isoline_${name}_cu>)
  endif()
  add_library(isoline_${name} STATIC ${ROOM_SOURCES})
  add_library(isoline::${name} ALIAS isoline_${name})
  set_target_properties(isoline_${name} PROPERTIES EXPORT_NAME ${name} POSITION_INDEPENDENT_CODE ON)
  target_compile_features(isoline_${name} PUBLIC cxx_std_20)
  target_include_directories(isoline_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src> $<INSTALL_INTERFACE:include>)
  foreach(room ${ROOM_DEPENDS})
    target_link_libraries(isoline_${name} PUBLIC isoline::${room})
  endforeach()
  target_link_libraries(isoline_${name} PUBLIC ${ROOM_LINK} PRIVATE ${ROOM_PRIVATE_LINK})
  isoline_compile_options(isoline_${name})
  install(TARGETS isoline_${name} EXPORT isoline-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  if(ISOLINE_BUILD_TESTS AND ROOM_TESTS)
    add_executable(${name}_test ${ROOM_TESTS})
    target_link_libraries(${name}_test PRIVATE isoline::${name} GTest::gtest GTest::gtest_main)
    foreach(room ${ROOM_TEST_DEPENDS})
      target_link_libraries(${name}_test PRIVATE isoline::${room})
    endforeach()
    isoline_compile_options(${name}_test)
    target_compile_definitions(${name}_test PRIVATE ISOLINE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    add_test(NAME ${name} COMMAND ${name}_test)
  endif()
endfunction()

# Warnings, reproducible floating point and sanitizers, the same for every target.
function(isoline_compile_options target)
  # No contraction: a*b+c rounds twice everywhere unless a room asks for fma, so results do not depend on the CPU.
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>
    "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-ffp-contract=off>"
    $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${ISOLINE_WERROR}>>:-Werror>
    # GCC 12 warns falsely inside std::string operator+ (GCC bug 105651).
    $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>
    # GCC 12's basic-block vectoriser drops the rounding of double(float(x)), which costs bit parity.
    $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fno-tree-slp-vectorize>)
  if(ISOLINE_SANITIZE)
    target_compile_options(${target} PRIVATE
      "$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${ISOLINE_SANITIZE};-fno-omit-frame-pointer>")
    target_link_options(${target} PRIVATE -fsanitize=${ISOLINE_SANITIZE})
  endif()
endfunction()
