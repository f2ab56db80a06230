-- Names of keys, the store's clock, single fields.
--
-- What a script uses of the files of this folder is put in front of it when it is loaded, in the order that
-- jobs/scripts.py names, behind what is made from Python: MOVES (jobs/status.py), TICKETS and LIMITS (jobs/scripts.py).
-- So a file may use only what stands before it in that order.
-- Keys are made here from the id of a job, so KEYS is empty everywhere: a store is one node, never a cluster.
-- The list of all keys stands at the head of jobs/store.py.

local PREFIX = 'qc:'
local PARTS = {
  'waiting', 'inputs', 'rows', 'leases', 'results', 'failures', 'done', 'slots', 'attempts', 'parts', 'patches',
}
local WORKER_SILENCE_MS = 10000 -- a worker that has not announced itself for so long does not count as live
local SINGLE = 's' -- stands in for the chunk's index where a single prediction is leased

local function key(name)
  return PREFIX .. name
end

local function job_key(id, part)
  if part then
    return PREFIX .. 'job:' .. id .. ':' .. part
  end
  return PREFIX .. 'job:' .. id
end

local function inbox_key(model_key)
  return PREFIX .. 'inbox:' .. model_key
end

-- Small batches that wait for whoever works on the inbox. An id may get lost here: the sweep finds its chunk.
local function inbox_batches(model_key)
  return inbox_key(model_key) .. ':batches'
end

-- The ticket that is on its way to an inbox.
local function inbox_mark(model_key)
  return inbox_key(model_key) .. ':mark'
end

-- Rung for the worker that lingers at an inbox.
local function inbox_bell(model_key)
  return inbox_key(model_key) .. ':bell'
end

local function int(number)
  return string.format('%.0f', number)
end

-- Milliseconds since the epoch by the store's clock: the only clock that decides anything.
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function get(id, field)
  return redis.call('HGET', job_key(id), field)
end

local function count(id, field)
  return tonumber(get(id, field) or 0)
end

-- A single prediction does not say so: there may be very many.
local function kind_of(id)
  return get(id, 'kind') or 'single'
end

local function unended(kind)
  return key(kind == 'single' and 'singles' or 'batches')
end

local function index_key(tenant, kind)
  return key('jobs:' .. tenant .. ':' .. kind)
end

local function leased(id, index)
  return id .. ' ' .. index
end

local function live_workers(at)
  return redis.call('ZCOUNT', key('workers'), int(at - WORKER_SILENCE_MS), '+inf')
end

-- What this script has changed; published as one message when it ends (jobs/scripts.py, jobs/news.py).
local news = {}

-- Tells those who wait for a job that it has changed. `fields`, if given, are those of its record that did.
local function tell(id, ended, fields)
  if news[id] and news[id][2] == 1 then
    return
  end
  news[id] = { id, ended and 1 or 0, unpack(fields or {}) }
end

local function publish()
  local list = {}
  for _, item in pairs(news) do
    list[#list + 1] = item
  end
  if #list > 0 then
    redis.call('PUBLISH', key('news'), cjson.encode(list))
  end
end
