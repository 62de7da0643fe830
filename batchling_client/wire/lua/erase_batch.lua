-- Erases a batch that is over, with everything that is stored of it.
-- KEYS  1 batch  2 rows  3 unanswered  4 failures  5 failed_rows  6 schedule  7 batches  8 spent_files
-- ARGV  1 batch_id  2 terminal: the terminal states, comma separated
-- Verdicts  'OK'  'GONE' no such batch  'LIVES' it is not over: nothing was done
--       'BUSY' files of it are to be deleted at its provider, for which its record is needed: nothing was done
--@include _moved
local batch, schedule, batches, spent = KEYS[1], KEYS[6], KEYS[7], KEYS[8]
local id, terminal = ARGV[1], ',' .. ARGV[2] .. ','
local state = redis.call('HGET', batch, 'state')
if not state then
  return 'GONE'
end
if not string.find(terminal, ',' .. state .. ',', 1, true) then
  return 'LIVES'
end
for _, files in ipairs({'inputs:', 'results:'}) do
  -- A foreign value in place of the list is replaced at the next settle.
  if tonumber(redis.pcall('ZSCORE', spent, files .. id) or '') then
    return 'BUSY'
  end
end
unlisted(batch)
redis.call('UNLINK', batch, KEYS[2], KEYS[3], KEYS[4], KEYS[5])
redis.pcall('ZREM', schedule, id)
redis.pcall('ZREM', batches, id)
return 'OK'
