core.register_action("pause", { "http-req" }, function(txn) core.msleep(2000) end)
