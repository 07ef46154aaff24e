# What `cmake --install` puts in place, and what the wheel carries under tachyon/: headers, libtachyon.a, a CMake package and
# a pkg-config file. Nothing in it names a folder of this machine, so the whole may be moved.

include(CMakePackageConfigHelpers)
include(CheckCXXSourceCompiles)
include(CMakePushCheckState)
include(GNUInstallDirs)

cmake_push_check_state(RESET)
check_cxx_source_compiles("#include <cstddef>
  #if !defined(_LIBCPP_VERSION)
  #error
  #endif
  int main() {}" TACHYON_LIBCPP)
cmake_pop_check_state()
if(TACHYON_LIBCPP)
  set(TACHYON_STANDARD_LIBRARY _LIBCPP_VERSION)
  set(TACHYON_STANDARD_LIBRARY_NAME "LLVM's libc++")
else()
  set(TACHYON_STANDARD_LIBRARY __GLIBCXX__)
  set(TACHYON_STANDARD_LIBRARY_NAME "GNU's libstdc++")
endif()

install(TARGETS tachyon_core EXPORT tachyonTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
set_target_properties(tachyon_core PROPERTIES EXPORT_NAME core)
install(DIRECTORY cxx/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.hpp")

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/tachyon)
install(EXPORT tachyonTargets NAMESPACE tachyon:: DESTINATION ${package})
configure_package_config_file(cmake/tachyonConfig.cmake.in tachyonConfig.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(tachyonConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/tachyonConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/tachyonConfigVersion.cmake
        DESTINATION ${package})

file(RELATIVE_PATH TACHYON_PC_TO_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" TACHYON_PC_TO_PREFIX "${TACHYON_PC_TO_PREFIX}")
file(RELATIVE_PATH TACHYON_PC_LIBDIR ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_LIBDIR})
file(RELATIVE_PATH TACHYON_PC_INCLUDEDIR ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_INCLUDEDIR})
configure_file(cmake/tachyon.pc.in tachyon.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/tachyon.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
