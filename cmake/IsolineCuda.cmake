# Decides whether the cuda backend is built and enables the language. Sets ISOLINE_CUDA (bool), ISOLINE_CUDART_STATIC.
# ISOLINE_BACKEND_CUDA: AUTO (if a compiler is found), ON (an error if none is) or OFF.
set(ISOLINE_CUDA FALSE)
if(NOT ISOLINE_BACKEND_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "ISOLINE_BACKEND_CUDA is '${ISOLINE_BACKEND_CUDA}': use AUTO, ON or OFF.")
endif()
if(NOT ISOLINE_BACKEND_CUDA STREQUAL "OFF")
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    # A toolkit that is not on PATH: the system's usual place, or the wheels that `make setup` puts into .venv.
    file(GLOB isoline_wheel_nvcc ${CMAKE_CURRENT_SOURCE_DIR}/.venv/lib/python3*/site-packages/nvidia/cu13/bin)
    find_program(ISOLINE_NVCC nvcc HINTS ENV CUDA_PATH PATH_SUFFIXES bin PATHS /usr/local/cuda/bin ${isoline_wheel_nvcc})
    mark_as_advanced(ISOLINE_NVCC)
    if(ISOLINE_NVCC)
      set(ENV{CUDACXX} ${ISOLINE_NVCC})  # check_language() tries it
    endif()
  endif()
  # Machine code for Ampere, Ada and Hopper, and PTX for what comes after.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90 CACHE STRING "CUDA architectures")
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.0)
      message(FATAL_ERROR "nvcc ${CMAKE_CUDA_COMPILER_VERSION} is too old for C++20: use CUDA 12 or newer, or "
        "-DISOLINE_BACKEND_CUDA=OFF.")
    endif()
    get_filename_component(isoline_cuda_root ${CMAKE_CUDA_COMPILER} REALPATH)
    get_filename_component(isoline_cuda_root ${isoline_cuda_root} DIRECTORY)
    get_filename_component(isoline_cuda_root ${isoline_cuda_root} DIRECTORY)
    find_library(ISOLINE_CUDART_STATIC cudart_static
      HINTS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES} ${isoline_cuda_root}/lib64 ${isoline_cuda_root}/lib
            ${isoline_cuda_root}/targets/x86_64-linux/lib)
    find_path(ISOLINE_CUDART_INCLUDE cuda_runtime.h
      HINTS ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES} ${isoline_cuda_root}/include
            ${isoline_cuda_root}/targets/x86_64-linux/include)
    mark_as_advanced(ISOLINE_CUDART_STATIC ISOLINE_CUDART_INCLUDE)
    if(ISOLINE_CUDART_STATIC AND ISOLINE_CUDART_INCLUDE)
      set(ISOLINE_CUDA TRUE)
      add_library(isoline::cudart_static STATIC IMPORTED GLOBAL)
      find_package(Threads REQUIRED)
      set_target_properties(isoline::cudart_static PROPERTIES IMPORTED_LOCATION ${ISOLINE_CUDART_STATIC}
        INTERFACE_INCLUDE_DIRECTORIES ${ISOLINE_CUDART_INCLUDE} INTERFACE_LINK_LIBRARIES "Threads::Threads;dl;rt")
      message(STATUS "Backend cuda: nvcc ${CMAKE_CUDA_COMPILER_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES}")
    endif()
  endif()
  if(NOT ISOLINE_CUDA)
    set(how "Install NVIDIA's CUDA toolkit 12 or newer and put nvcc on PATH (or set CUDACXX), or `make setup`, which installs "
      "NVIDIA's compiler wheels into .venv")
    if(ISOLINE_BACKEND_CUDA STREQUAL "ON")
      message(FATAL_ERROR "ISOLINE_BACKEND_CUDA is ON but no working CUDA compiler was found. " ${how} ".")
    endif()
    message(STATUS "Backend cuda is left out: no CUDA compiler. " ${how} ".")
  endif()
endif()
