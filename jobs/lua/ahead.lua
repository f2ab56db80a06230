#!lua flags=no-writes
-- What stands before a moment in the queue; the whole queue when the moment is '+inf'.
-- ARGV: created_at ('+inf': everything)
-- Returns {unended jobs accepted before, rows that they still have, created_at of the oldest or ''}.
-- Rows of at most a thousand batches are added up: beyond that the position says enough.
local bound = ARGV[1] == '+inf' and '+inf' or '(' .. ARGV[1]
local singles = redis.call('ZCOUNT', key('singles'), '-inf', bound)
local jobs = singles + redis.call('ZCOUNT', key('batches'), '-inf', bound)
local rows = singles
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('batches'), '-inf', bound, 'LIMIT', 0, 1000)) do
  rows = rows + count(id, 'rows_received') - count(id, 'rows_ok') - count(id, 'rows_failed')
end
local oldest = ''
for _, kind in ipairs({ 'singles', 'batches' }) do
  local first = redis.call('ZRANGE', key(kind), 0, 0, 'WITHSCORES')
  if first[2] and (oldest == '' or tonumber(first[2]) < tonumber(oldest)) then
    oldest = first[2]
  end
end
return { jobs, rows, oldest, int(now()) }
