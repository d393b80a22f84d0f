std = "luajit"
max_line_length = 132
files["spec"] = { std = "+busted" }
exclude_files = { "build" }
