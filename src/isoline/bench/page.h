// A bench result as a page, in the form of every other report.
#pragma once

#include "isoline/bench/result.h"
#include "isoline/report/document.h"

namespace isoline::bench {

report::Document make_page(const BenchResult& result, const std::string& title);

}  // namespace isoline::bench
