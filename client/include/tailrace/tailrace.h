#pragma once
/// The whole SDK.
#include "tailrace/admin.h"
#include "tailrace/client.h"
#include "tailrace/consumer.h"
#include "tailrace/errc.h"
#include "tailrace/error.h"
#include "tailrace/event_store.h"
#include "tailrace/executor.h"
#include "tailrace/producer.h"
#include "tailrace/record.h"
#include "tailrace/task.h"
