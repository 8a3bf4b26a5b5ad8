# Installs the build into a scratch prefix, builds the example against it with find_package and runs it.
# Variables: BUILD (build folder), SOURCE (source folder), MODEL (a model for the example), GENERATOR.
set(prefix ${BUILD}/find_package/prefix)
file(REMOVE_RECURSE ${BUILD}/find_package)
function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE code OUTPUT_VARIABLE out ERROR_VARIABLE out)
  if(code)
    message(FATAL_ERROR "${ARGV}\n${out}")
  endif()
  message(STATUS "${out}")
endfunction()
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix})
run(${CMAKE_COMMAND} -S ${SOURCE}/examples/segment_buffer -B ${BUILD}/find_package/build -G ${GENERATOR}
    -DCMAKE_PREFIX_PATH=${prefix} -DCMAKE_BUILD_TYPE=Release)
run(${CMAKE_COMMAND} --build ${BUILD}/find_package/build)
run(${BUILD}/find_package/build/segment_buffer ${MODEL})
