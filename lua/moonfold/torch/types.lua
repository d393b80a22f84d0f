--- Element types of PyTorch: which storages hold them, which of ours take them.
-- @module moonfold.torch.types
local M = {}

--- Type name of PyTorch -> how an element lies, and the type of ours that takes it when that has another name.
M.layouts = {
  float64 = { kind = "float", width = 8 }, float32 = { kind = "float", width = 4 }, float16 = { kind = "float", width = 2 },
  bfloat16 = { kind = "bfloat", width = 2 }, bool = { kind = "bool", width = 1 },
  int64 = { kind = "signed", width = 8 }, int32 = { kind = "signed", width = 4 },
  int16 = { kind = "signed", width = 2, widened = "int32" }, int8 = { kind = "signed", width = 1, widened = "int32" },
  uint8 = { kind = "unsigned", width = 1, widened = "int32" }, uint16 = { kind = "unsigned", width = 2, widened = "int32" },
  uint32 = { kind = "unsigned", width = 4, widened = "int64" }, uint64 = { kind = "unsigned", width = 8, widened = "int64" },
}

--- Storage class -> type name. What has no layout above is kept as inert data.
M.storages = {
  ["torch.DoubleStorage"] = "float64", ["torch.FloatStorage"] = "float32", ["torch.HalfStorage"] = "float16",
  ["torch.BFloat16Storage"] = "bfloat16", ["torch.LongStorage"] = "int64", ["torch.IntStorage"] = "int32",
  ["torch.ShortStorage"] = "int16", ["torch.CharStorage"] = "int8", ["torch.ByteStorage"] = "uint8",
  ["torch.BoolStorage"] = "bool", ["torch.ComplexFloatStorage"] = "complex64", ["torch.ComplexDoubleStorage"] = "complex128",
  ["torch.QInt8Storage"] = "qint8", ["torch.QUInt8Storage"] = "quint8", ["torch.QInt32Storage"] = "qint32",
  ["torch.storage.UntypedStorage"] = "bytes", ["torch.UntypedStorage"] = "bytes",
}

--- Our type -> storage class, for writing.
M.classes = {
  float64 = "DoubleStorage", float32 = "FloatStorage", float16 = "HalfStorage", bfloat16 = "BFloat16Storage", int64 = "LongStorage",
  int32 = "IntStorage", bool = "BoolStorage",
}

return M
