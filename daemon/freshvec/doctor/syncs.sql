-- reported: what the worker last said of a sync: error, device, and why bulk work waits
SELECT last_error, device, paused FROM freshvec.activity WHERE sync = %(name)s
