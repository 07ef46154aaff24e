# Makes `cimport tachyon` and `from tachyon cimport Bus` work.
from tachyon._tachyon cimport Bus, Frame, RpcBus
