#!/bin/sh
# For an orchestrator: 0 while the node works, 1 when it is down. `syncect status` answers 0 ok, 1 degraded, 2 down;
# degraded means that a person is needed (a held series, a TPS that does not answer), and a restart mends none of that.
code=0
syncect status || code=$?
[ "$code" -le 1 ]
