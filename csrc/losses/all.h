// Every pair loss of list.h; what each needs of its side (losses/logarithm.h) is included before.
#pragma once

#include "list.h"
#include "mutual_information.h"
#include "pkt.h"
#include "polynomial.h"
