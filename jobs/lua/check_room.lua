#!lua flags=no-writes
-- Whether the store could promise so many bytes now.
-- ARGV: bytes
-- Returns 'ok' or 'full'.
return fits(tonumber(ARGV[1])) and 'ok' or 'full'
