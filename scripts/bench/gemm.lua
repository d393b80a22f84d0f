-- Matrix products: ours (OpenBLAS on one thread, split by us) against OpenBLAS's own threads, in the shapes of a layer.
local ffi = require "ffi"
local mf = require "moonfold"
local stopwatch = require "moonfold.stopwatch"

-- The reference is called directly, which nothing but a benchmark should do.
ffi.cdef [[
void cblas_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb,
                 float beta, float *c, int ldc);
void openblas_set_num_threads(int n);
]]
local ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112

local shapes = {
  { "square", 1024, 1024, 1024 }, { "projections L=1024", 1024, 3904, 256 }, { "projections L=4096", 4096, 3904, 256 },
  { "output L=4096", 4096, 256, 1664 }, { "transition L=4096", 4096, 256, 256 },
}

local function reference(blas, threads, repeats, m, n, k)
  local a, b, c = ffi.new("float[?]", m * k), ffi.new("float[?]", n * k), ffi.new("float[?]", m * n)
  for i = 0, m * k - 1 do a[i] = (i % 13) * 0.1 end
  for i = 0, n * k - 1 do b[i] = (i % 7) * 0.1 end
  blas.openblas_set_num_threads(threads)
  local seconds = stopwatch.median(repeats, function()
    blas.cblas_sgemm(ROW_MAJOR, PLAIN, TRANSPOSED, m, n, k, 1, a, k, b, k, 0, c, n)
  end)
  blas.openblas_set_num_threads(1)   -- as Moonfold wants it
  return seconds
end

return function(o, report)
  local blas = ffi.load "openblas"
  for _, shape in ipairs(shapes) do
    local name, m, n, k = unpack(shape)
    local x, w = mf.randn(m, k), mf.randn(n, k)
    local ours = mf.no_grad(stopwatch.median, o.repeats, function() x:linear(w) end)
    local theirs = reference(blas, mf.threads(), o.repeats, m, n, k)
    local work = 2 * m * n * k
    report { "gemm", name, "GFLOP/s", work / ours / 1e9, "OpenBLAS", work / theirs / 1e9, "share", theirs / ours }
  end
end
