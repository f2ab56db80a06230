#!lua flags=no-writes
-- What stands before a moment in the queue; the whole queue when the moment is '+inf'.
-- ARGV: created_at ('+inf': everything), a model's key or ''
-- Returns {unended jobs accepted before, rows that they still have, seconds of one worker that those take ('' when no
-- model of theirs was ever measured), created_at of the oldest or '', now, tickets that wait, live workers, rows per
-- second that one of them does of the model ('': nobody knows)}.
-- A hundred batches are looked at; more are taken to be like them.
local MOST_LOOKED_AT = 100
local bound = ARGV[1] == '+inf' and '+inf' or '(' .. ARGV[1]
local singles = redis.call('ZCOUNT', key('singles'), '-inf', bound)
local batches = redis.call('ZCOUNT', key('batches'), '-inf', bound)
local share = math.min(1, MOST_LOOKED_AT / batches)
local rows, seconds = 0, ''
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('batches'), '-inf', bound, 'LIMIT', 0, MOST_LOOKED_AT)) do
  local left = count(id, 'rows_received') - count(id, 'rows_ok') - count(id, 'rows_failed') - count(id, 'rows_left_alone')
  local known = tonumber(rate(get(id, 'model_key') or ''))
  rows = rows + left
  if known then
    seconds = (seconds == '' and 0 or seconds) + left / known
  end
end
local oldest = ''
for _, kind in ipairs({ 'singles', 'batches' }) do
  local first = redis.call('ZRANGE', key(kind), 0, 0, 'WITHSCORES')
  if first[2] and (oldest == '' or tonumber(first[2]) < tonumber(oldest)) then
    oldest = first[2]
  end
end
local at = now()
seconds = seconds == '' and '' or string.format('%.3f', seconds / share)
return {
  singles + batches, singles + math.floor(rows / share), seconds, oldest, int(at), redis.call('LLEN', TICKETS),
  live_workers(at), rate(ARGV[2]),
}
