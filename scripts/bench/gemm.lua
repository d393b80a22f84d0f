-- Matrix products in the shapes of a layer. On the CPU ours (OpenBLAS on one thread, split by us) against OpenBLAS's own
-- threads; on a GPU by what operands are rounded to (mf.products), forward and the two products of backward.
local ffi = require "ffi"
local mf = require "moonfold"

local shapes = {
  { "square", 1024, 1024, 1024 }, { "projections L=1024", 1024, 3904, 256 }, { "projections L=4096", 4096, 3904, 256 },
  { "output L=4096", 4096, 256, 1664 }, { "transition L=4096", 4096, 256, 256 },
}
local larger = {
  { "square", 4096, 4096, 4096 }, { "projections L=16384", 16384, 3904, 256 }, { "output L=16384", 16384, 256, 1664 },
  { "edges 8192 x 20", 163840, 128, 384 },
}

-- The reference is called directly, which nothing but a benchmark should do.
local ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112
local function reference(blas, threads, measure, m, n, k)
  local a, b, c = ffi.new("float[?]", m * k), ffi.new("float[?]", n * k), ffi.new("float[?]", m * n)
  for i = 0, m * k - 1 do a[i] = (i % 13) * 0.1 end
  for i = 0, n * k - 1 do b[i] = (i % 7) * 0.1 end
  blas.openblas_set_num_threads(threads)
  local seconds = measure.time(function() blas.cblas_sgemm(ROW_MAJOR, PLAIN, TRANSPOSED, m, n, k, 1, a, k, b, k, 0, c, n) end)
  blas.openblas_set_num_threads(1)   -- as Moonfold wants it
  return seconds
end

local function on_cpu(o, report)
  ffi.cdef [[
  void cblas_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb,
                   float beta, float *c, int ldc);
  void openblas_set_num_threads(int n);
  ]]
  local blas = ffi.load "openblas"
  for _, shape in ipairs(shapes) do
    local name, m, n, k = unpack(shape)
    local x, w = mf.randn(m, k), mf.randn(n, k)
    local ours = mf.no_grad(o.measure.time, function() x:linear(w) end)
    local theirs = reference(blas, mf.threads(), o.measure, m, n, k)
    local work = 2 * m * n * k
    report { "gemm", name, "GFLOP/s", work / ours / 1e9, "OpenBLAS", work / theirs / 1e9, "share", theirs / ours }
  end
end

local function on_gpu(o, report)
  local function one(name, m, n, k)
    local x, w = mf.randn(m, k):to(o.device):require_grad(), mf.randn(n, k):to(o.device):require_grad()
    local g = mf.randn(m, n):to(o.device)
    local row, work = { "gemm", name }, 2 * m * n * k
    for _, kind in ipairs { "float32", "tf32", "bf16" } do
      mf.products(kind, function()
        local forward = mf.no_grad(o.measure.time, function() x:linear(w) end)
        local both = o.measure.time(function()
          x:linear(w):backward(g)
          x:zero_grad() w:zero_grad()
        end)
        row[#row + 1], row[#row + 2] = kind .. "_fwd_GFLOP/s", work / forward / 1e9
        row[#row + 1], row[#row + 2] = kind .. "_both", 3 * work / both / 1e9
      end)
    end
    report(row)
  end
  for _, list in ipairs { shapes, larger } do
    for _, shape in ipairs(list) do mf.scope(one, unpack(shape)) end
  end
end

return function(o, report)
  if o.gpu then on_gpu(o, report) else on_cpu(o, report) end
end
